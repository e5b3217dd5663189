"""HLT: the vCPU sleeps until an event."""
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Goes on behind the HLT."""
    vcpu.halted_at_hlt = True
    return Outcome.BLOCK
