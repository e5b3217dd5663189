"""The hardware refused to enter the guest: our fault or a state that the guest made impossible. Stops this VM only."""
from hypervisor import crash, log
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import char_at
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Name the field if it can be told, then dump."""
    field = backend.refused_field(vcpu)
    if char_at(field, 0) != 0:
        log.error(f"vm entry refused: {field}")
    crash.stop(vcpu, exit, "vm entry failed")
    return Outcome.STOP
