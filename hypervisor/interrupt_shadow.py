"""The shadow of STI, where the hardware loses it.

QEMU 7.2 stores the interrupt shadow at #VMEXIT but does not load it at VMRUN. A host interrupt right behind STI would so let the
guest's own interrupt in one instruction early; before the HLT of STI, HLT it would be handled, and HLT sleep over what it was to do.
"""
from typing import Annotated, Final

from hypervisor import guest_code
from hypervisor.addresses import Hva
from hypervisor.arch_x86 import backend
from hypervisor.lang import address, array, u8, u64, wrap_u64
from hypervisor.model import Vcpu

STI: Final = 0xFB


def renew(vcpu: Vcpu) -> None:
    """An interrupt waits for the end of a shadow that the next entry may not load: the guest executes its STI again.

    If the byte before RIP is no STI, but the last one of a MOV SS, an STI with interrupts on that is executed there does nothing else.
    """
    code: Annotated[list[u8], guest_code.CODE_BYTES] = array(u8, guest_code.CODE_BYTES)
    behind: u64 = vcpu.regs.rip
    vcpu.regs.rip = wrap_u64(behind - 1)
    if guest_code.fetch(vcpu, Hva(address(code))) != 0 and code[0] == STI:
        backend.before_sti(vcpu)
    else:
        vcpu.regs.rip = behind
