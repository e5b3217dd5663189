"""Exceptions that are intercepted: #DB and #AC, because their delivery can loop for ever, and #MC, which is the host's."""
from hypervisor import crash, inject
from hypervisor.arch_x86.defs.cr import AC, DB, MC
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """The guest gets its own; a machine check stops the VM that was running, for its memory may be bad."""
    if exit.vector == DB:
        inject.exception(vcpu, DB)
        return Outcome.RESUME
    if exit.vector == AC:
        inject.exception_with_error(vcpu, AC, exit.error_code)
        return Outcome.RESUME
    crash.stop(vcpu, exit, "machine check" if exit.vector == MC else "an exception that is not intercepted")
    return Outcome.STOP
