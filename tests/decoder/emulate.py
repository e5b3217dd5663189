"""One dispatch of the instruction at RIP on guest memory, as handlers/nested_fault.py does it, for both lives of the emulation. In the subset."""
from typing import Final

from hypervisor import guest_code, mmio_emulation
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.decoder.instruction import Instruction
from hypervisor.arch_x86.decoder.mmio import Access, Operation, describe
from hypervisor.arch_x86.state import GuestState
from hypervisor.lang import u32, u64
from hypervisor.model import Vcpu

NOT_KNOWN: Final = 100


def prepare(vcpu: Vcpu, state: GuestState) -> None:
    """Give a vCPU its state."""
    backend.write_state(vcpu, state)


def once(vcpu: Vcpu) -> u64:
    """handlers.outcome.Outcome, or NOT_KNOWN."""
    state = GuestState()
    code = Instruction()
    access = Access()
    backend.read_state(vcpu, state)
    known: bool = guest_code.decode_at_rip(vcpu, state, code) and describe(code, access)
    if not known or access.operation in (Operation.INS, Operation.OUTS):
        return NOT_KNOWN
    return u64(u32(mmio_emulation.run(vcpu, state, code, access)))
