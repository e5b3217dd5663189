"""Shutdown: an exception while #DF was being delivered. A PC would reset; here the VM is stopped, with the reason visible."""
from hypervisor import crash
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Stop this VM."""
    crash.stop(vcpu, exit, "triple fault")
    return Outcome.STOP
