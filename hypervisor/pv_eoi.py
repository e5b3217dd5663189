"""KVM's paravirtual EOI: a bit in guest memory says that the interrupt just taken needs no write to the EOI register, an exit less.

Source: Linux Documentation/virt/kvm/x86/msr.rst (6.1), MSR_KVM_PV_EOI_EN.

| MSR | a guest writes | what happens |
|---|---|---|
| 4B564D04 | address, 4-byte aligned; bit 0 enable | bit 0 of the word there is set when an interrupt is taken behind which none waits, and which is no level's |

The guest clears the bit in place of its EOI; if it was clear already it writes EOI. Whatever asks what is in service (an interrupt on
its way in, HLT, reads of the local APIC, EOI itself) calls `sync` first, which does the EOI if the guest has cleared the bit, and else
takes the bit back. A level's EOI is never left to the bit, so nothing is owed to the I/O APIC.
"""
from typing import Final

from hypervisor.addresses import Gpa
from hypervisor.devices import lapic
from hypervisor.lang import sizeof, u32, u64
from hypervisor.memory import guest_memory, guest_window
from hypervisor.model import Vcpu
from hypervisor.status import Status

ENABLE: Final[u64] = 1
UNALIGNED: Final[u64] = 2
SKIP_EOI: Final[u32] = 1


def write(vcpu: Vcpu, value: u64) -> Status:
    """WRMSR of 4B564D04 by its vCPU. WAIT, or an error: #GP."""
    if value & UNALIGNED != 0:
        return Status.BAD_ARGUMENT
    sync(vcpu)
    if value & ENABLE != 0:
        status = guest_memory.pin(vcpu, Gpa(value & ~ENABLE), sizeof(u32), True)
        if status != Status.OK:
            return status
    vcpu.kept.pv_eoi_msr = value
    return Status.OK


def place(vcpu: Vcpu) -> u64:
    """Where the word is now; 0: the guest has released its page."""
    vm = vcpu.vm
    assert vm is not None
    return guest_memory.host_address(vm, Gpa(vcpu.kept.pv_eoi_msr & ~ENABLE))


def offer(vcpu: Vcpu) -> None:
    """The vCPU takes an interrupt of its local APIC: let it do without EOI if nothing depends on when that comes."""
    apic = vcpu.lapic
    if vcpu.kept.pv_eoi_msr & ENABLE == 0 or apic.requests != 0 or lapic.is_level(apic, apic.in_service):
        return
    word = place(vcpu)
    if word != 0:
        guest_window.store_u32(word, guest_window.load_u32(word) | SKIP_EOI)
        vcpu.kept.pv_eoi_offered = True


def sync(vcpu: Vcpu) -> None:
    """Take over what a vCPU that is in no guest mode has done with the bit."""
    if not vcpu.kept.pv_eoi_offered:
        return
    vcpu.kept.pv_eoi_offered = False
    word = place(vcpu)
    if word == 0:
        return
    found: u32 = guest_window.load_u32(word)
    if found & SKIP_EOI == 0:
        lapic.end_of_interrupt(vcpu.lapic)
    else:
        guest_window.store_u32(word, found & ~SKIP_EOI)
