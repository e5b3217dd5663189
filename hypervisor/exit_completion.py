"""What the hardware left out of an exit, read from the guest's instruction (QEMU, and older CPUs, have no decode assists)."""
from hypervisor import guest_code
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.decoder.decode import MOV_CR_FIRST, MOV_CR_LAST
from hypervisor.arch_x86.decoder.instruction import MAP_0F, Instruction
from hypervisor.arch_x86.state import GuestState
from hypervisor.arch_x86.vm_exit import REGISTER_UNKNOWN, VmExit
from hypervisor.model import Vcpu


def complete_register_access(vcpu: Vcpu, exit: VmExit) -> bool:
    """Fill in length, number and register of a CR_ACCESS or DR_ACCESS. False: what is at RIP is no such instruction (any
    more), so run it again."""
    if exit.register != REGISTER_UNKNOWN:
        return True
    state = GuestState()
    code = Instruction()
    backend.read_state(vcpu, state)
    if not guest_code.decode_at_rip(vcpu, state, code) or code.map != MAP_0F or not MOV_CR_FIRST <= code.opcode <= MOV_CR_LAST:
        return False
    exit.length = code.length
    exit.number = code.reg + (8 if code.lock else 0)  # LOCK MOV CR0 is MOV CR8 (APM vol. 3, MOV CRn)
    exit.register = code.rm
    return True
