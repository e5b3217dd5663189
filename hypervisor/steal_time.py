"""KVM's steal time: how long a vCPU that wanted to run did not, told to its guest in a structure that the guest registers.

Source: Linux Documentation/virt/kvm/x86/msr.rst (6.1), MSR_KVM_STEAL_TIME; Documentation/virt/kvm/x86/cpuid.rst.

| MSR | a guest writes | what happens |
|---|---|---|
| 4B564D03 | address, 64-byte aligned; bit 0 enable; bits 1-5 zero | the structure is kept up to date there: before the vCPU runs again, and when it loses the CPU |

A guest that finds `preempted` set may set PREEMPTED_FLUSH_TLB beside it, in place of an IPI: its translations are dropped before the
vCPU runs again. The time itself is counted by whoever schedules (Vcpu.steal_ticks), whether a guest asks for it or not.
"""
from typing import Final

from hypervisor import clock
from hypervisor.addresses import Gpa
from hypervisor.cpu import owe
from hypervisor.lang import offsetof, sizeof, struct, u8, u32, u64, wrap_u32
from hypervisor.memory import guest_memory, guest_window
from hypervisor.model import WORK_TLB, Vcpu
from hypervisor.status import Status

ENABLE: Final[u64] = 1
RESERVED: Final[u64] = 0x3E
PREEMPTED: Final[u64] = 1  # StealTime.preempted: the vCPU is on no CPU
PREEMPTED_FLUSH_TLB: Final[u64] = 2


@struct
class StealTime:
    """struct kvm_steal_time: 64 bytes."""

    steal: u64  # ns
    version: u32  # odd while it is being changed
    flags: u32
    preempted: u8
    pad0: u8
    pad1: u8
    pad2: u8
    pad3: u32
    pad4: u64
    pad5: u64
    pad6: u64
    pad7: u64
    pad8: u64


def write(vcpu: Vcpu, value: u64) -> Status:
    """WRMSR of 4B564D03 by its vCPU. WAIT, or an error: #GP."""
    if value & RESERVED != 0:
        return Status.BAD_ARGUMENT
    if value & ENABLE != 0:
        status = guest_memory.pin(vcpu, Gpa(value & ~(RESERVED | ENABLE)), sizeof(StealTime), True)
        if status != Status.OK:
            return status
    vcpu.kept.steal_msr = value
    entered(vcpu)
    return Status.OK


def place(vcpu: Vcpu) -> u64:
    """Where the structure is now; 0: none is registered, or the guest has released its page."""
    vm = vcpu.vm
    if vcpu.kept.steal_msr & ENABLE == 0 or vm is None:
        return 0
    return guest_memory.host_address(vm, Gpa(vcpu.kept.steal_msr & ~(RESERVED | ENABLE)))


def entered(vcpu: Vcpu) -> None:
    """The vCPU has the CPU again: show what it has lost, and drop its translations if another vCPU asked for it."""
    info = place(vcpu)
    if info == 0:
        return
    told = guest_window.exchange_u64(info + offsetof(StealTime, "preempted"), 0)
    if told & PREEMPTED_FLUSH_TLB != 0:
        owe(WORK_TLB)
    version: u32 = guest_window.load_u32(info + offsetof(StealTime, "version")) | 1
    guest_window.store_u32(info + offsetof(StealTime, "version"), version)
    guest_window.store_u64(info + offsetof(StealTime, "steal"), clock.ns_of(vcpu.steal_ticks))
    guest_window.store_u32(info + offsetof(StealTime, "version"), wrap_u32(version + 1))


def left(vcpu: Vcpu) -> None:
    """The vCPU has lost the CPU to another, or sleeps."""
    info = place(vcpu)
    if info != 0:
        guest_window.exchange_u64(info + offsetof(StealTime, "preempted"), PREEMPTED)
