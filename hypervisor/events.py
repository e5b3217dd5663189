"""Events raised for a PV guest's vCPU (abi.EVENT_*)."""
from __future__ import annotations

from hypervisor.cpu import boot_cpu
from hypervisor.lang import address, u64
from hypervisor.model import WORK_INJECT, Vcpu, VcpuState
from hypervisor.sched.wake import wake


def raise_event(vcpu: Vcpu, bits: u64) -> None:
    """Make events pending: a BLOCKED vCPU wakes, a running one has them injected before its next entry."""
    vcpu.pending_events |= bits
    if vcpu.state == VcpuState.BLOCKED:
        wake(vcpu)
    current = boot_cpu.vcpu
    if current is not None and address(current) == address(vcpu):
        boot_cpu.work |= WORK_INJECT
