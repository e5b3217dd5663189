"""Making a vCPU runnable again: the one way for events, timers and memory. Leaf module, imported from everywhere."""
from __future__ import annotations

from hypervisor.cpu import boot_cpu
from hypervisor.model import WORK_RESCHED, Vcpu, VcpuState


def wake(vcpu: Vcpu) -> None:
    """Let a vCPU that is BLOCKED (an event) or WAITING (a frame) run again; does nothing to others."""
    if vcpu.state == VcpuState.BLOCKED or vcpu.state == VcpuState.WAITING:
        vcpu.state = VcpuState.RUNNABLE
        boot_cpu.work |= WORK_RESCHED
