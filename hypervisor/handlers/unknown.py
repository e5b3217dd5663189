"""An exit that nobody asked for: dumped, and this VM is stopped."""
from hypervisor import crash
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Stop this VM."""
    crash.stop(vcpu, exit, "unknown exit")
    return Outcome.STOP
