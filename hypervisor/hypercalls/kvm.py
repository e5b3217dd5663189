"""KVM's hypercalls, as far as CPUID leaf 40000001 offers them; a stock kernel calls them where the leaf says so.

Source: Linux Documentation/virt/kvm/x86/hypercalls.rst (6.1). VMCALL or VMMCALL at CPL 0, number in RAX, arguments in RBX, RCX, RDX,
RSI, result in RAX. An APIC ID is the number of a vCPU.

| number | call | what happens |
|---|---|---|
| 1 | VAPIC_POLL_IRQ | nothing: an exit, so that an interrupt that waits comes in |
| 5 | KICK_CPU (flags, APIC ID) | that vCPU goes on behind its HLT, or does not sleep at its next one |
| 10 | SEND_IPI (128 bits, low half, high half; first APIC ID; ICR) | to each vCPU whose bit is set, fixed or NMI; answers how many took it |
| 11 | SCHED_YIELD (APIC ID) | the caller gives way if that vCPU waits for a CPU |
"""
from enum import IntEnum
from typing import Final

from hypervisor import apic_bus
from hypervisor.arch_x86 import backend
from hypervisor.cpu import owe
from hypervisor.devices import lapic
from hypervisor.devices.lapic import Message
from hypervisor.handlers.outcome import Outcome
from hypervisor.hypercalls.answer import result
from hypervisor.lang import u32, u64, wrap_u64
from hypervisor.model import WORK_RESCHED, Vcpu, VcpuState
from hypervisor.sched import yielding
from hypervisor.sched.wake import wake

EPERM: Final = 1
EINVAL: Final = 22
ENOSYS: Final = 1000
ICR_DESTINATION: Final = 0xC_0800  # shorthand and logical mode


class Call(IntEnum):
    """Numbers."""

    VAPIC_POLL_IRQ = 1
    KICK_CPU = 5
    SEND_IPI = 10
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
        case Call.SEND_IPI:
            return send_ipi(vcpu)
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
        kicked.kept.kicked = True


def send_ipi(vcpu: Vcpu) -> Outcome:
    """Bit n of RCX:RBX is the vCPU with the APIC ID RDX + n; RSI has ICR's vector and mode, and no destination."""
    regs = vcpu.regs
    vm = vcpu.vm
    assert vm is not None
    icr = u32(regs.rsi)
    mode: u32 = icr >> 8 & 7
    if icr & ICR_DESTINATION != 0 or mode not in (lapic.MODE_FIXED, lapic.MODE_NMI):
        return refuse(vcpu, EINVAL)
    message = Message()
    message.mode = mode
    message.vector = icr & 0xFF
    taken: u64 = 0
    for half in range(2):
        bits: u64 = regs.rcx if half == 1 else regs.rbx
        first = wrap_u64(u32(regs.rdx) + 64 * half)
        while bits != 0:
            if bits & 1 != 0:
                member = other(vcpu, first)
                if member is not None and apic_bus.reach(vm, member, message):
                    taken += 1
            bits = bits >> 1
            first += 1
    apic_bus.look(vm)
    return result(vcpu, taken)


def yield_to(vcpu: Vcpu, apic_id: u64) -> None:
    """Give way, once, if that vCPU could run and does not."""
    wanted = other(vcpu, apic_id)
    if wanted is not None and yielding.yield_to(vcpu, wanted):
        owe(WORK_RESCHED)
