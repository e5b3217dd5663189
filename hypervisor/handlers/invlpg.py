"""INVLPG: not asked for with nested paging; one that exits all the same is unknown."""
from hypervisor import crash
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Stop this VM."""
    crash.stop(vcpu, exit, "INVLPG exit that was not asked for")
    return Outcome.STOP
