"""An NMI of the host ended the guest's time; the host's own handler has it or takes it next."""
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Nothing is left to do here."""
    return Outcome.RESUME
