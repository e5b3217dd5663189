"""PAUSE, when a spinning vCPU is to be noticed: it gives up the CPU."""
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.cpu import owe
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import WORK_RESCHED, Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Ask the policy again."""
    owe(WORK_RESCHED)
    return Outcome.SKIP
