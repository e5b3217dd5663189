"""What the hardware left out of an exit, read from the guest's instruction (QEMU, and older CPUs, have no decode assists)."""
from typing import Annotated

from hypervisor import guest_code
from hypervisor.addresses import Hva
from hypervisor.arch_x86 import instruction
from hypervisor.arch_x86.instruction import Decoded
from hypervisor.arch_x86.vm_exit import REGISTER_UNKNOWN, VmExit
from hypervisor.lang import address, array, u8
from hypervisor.model import Vcpu


def complete_register_access(vcpu: Vcpu, exit: VmExit) -> bool:
    """Fill in length, number and register of a CR_ACCESS or DR_ACCESS. False: what is at RIP is no such instruction (any
    more), so run it again."""
    if exit.register != REGISTER_UNKNOWN:
        return True
    code: Annotated[list[u8], 16] = array(u8, 16)
    decoded = Decoded()
    place = Hva(address(code))
    instruction.decode(place, guest_code.fetch(vcpu, place), guest_code.runs_long(vcpu), decoded)
    if decoded.length == 0 or not instruction.MOV_FROM_CR <= decoded.opcode <= instruction.MOV_TO_DR:
        return False
    exit.length = decoded.length
    exit.number = decoded.number
    exit.register = decoded.register
    return True
