"""KVM's hypercalls, as far as CPUID leaf 40000001 offers them; a stock kernel calls them where the leaf says so.

Source: Linux Documentation/virt/kvm/x86/hypercalls.rst (6.1). VMCALL or VMMCALL at CPL 0, number in RAX, arguments in RBX, RCX, RDX,
RSI, result in RAX. An APIC ID is the number of a vCPU.

| number | call | what happens |
|---|---|---|
| 1 | VAPIC_POLL_IRQ | nothing: an exit, so that an interrupt that waits comes in |
| 5 | KICK_CPU (flags, APIC ID) | that vCPU goes on behind its HLT, or does not sleep at its next one |
| 11 | SCHED_YIELD (APIC ID) | the caller gives way if that vCPU waits for a CPU |
"""
from enum import IntEnum
from typing import Final

from hypervisor.arch_x86 import backend
from hypervisor.cpu import owe
from hypervisor.handlers.outcome import Outcome
from hypervisor.hypercalls.answer import result
from hypervisor.lang import u32, u64, wrap_u64
from hypervisor.model import WORK_RESCHED, Vcpu, VcpuState
from hypervisor.sched import policy
from hypervisor.sched.wake import wake

EPERM: Final = 1
ENOSYS: Final = 1000


class Call(IntEnum):
    """Numbers."""

    VAPIC_POLL_IRQ = 1
    KICK_CPU = 5
    SCHED_YIELD = 11


def handle(vcpu: Vcpu) -> Outcome:
    """One call of a VM with a platform."""
    if backend.cpl(vcpu) != 0:
        return refuse(vcpu, EPERM)
    match u32(vcpu.regs.rax):
        case Call.VAPIC_POLL_IRQ:
            pass
        case Call.KICK_CPU:
            kick(vcpu, vcpu.regs.rcx)
        case Call.SCHED_YIELD:
            yield_to(vcpu, vcpu.regs.rbx)
        case _:
            return refuse(vcpu, ENOSYS)
    return result(vcpu, 0)


def refuse(vcpu: Vcpu, number: u32) -> Outcome:
    """Minus an error number of KVM's."""
    vcpu.regs.rax = wrap_u64(0 - u64(number))
    return Outcome.SKIP


def other(vcpu: Vcpu, apic_id: u64) -> Vcpu | None:
    """The vCPU of this VM with an APIC ID; None: there is none."""
    vm = vcpu.vm
    assert vm is not None
    return vm.vcpus[apic_id] if apic_id < vm.vcpu_count else None


def kick(vcpu: Vcpu, apic_id: u64) -> None:
    """Let a vCPU that halts, or is about to, go on."""
    kicked = other(vcpu, apic_id)
    if kicked is None:
        return
    if kicked.state == VcpuState.BLOCKED:
        wake(kicked)
    else:
        kicked.kicked = True


def yield_to(vcpu: Vcpu, apic_id: u64) -> None:
    """Give way, once, if that vCPU could run and does not."""
    wanted = other(vcpu, apic_id)
    if wanted is not None and policy.yield_to(vcpu, wanted):
        owe(WORK_RESCHED)
