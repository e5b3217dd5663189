"""The guest takes interrupts again, as asked by inject.deliver."""
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.cpu import owe
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import WORK_INJECT, Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Deliver before the next entry."""
    owe(WORK_INJECT)
    return Outcome.RESUME
