"""PAUSE, when a spinning vCPU is noticed: it lets a sibling that was preempted have its CPU, which may hold what it spins for.

VT-x notices loops of PAUSE (vtx/vcpu.py). SVM's pause filter is not used: QEMU has none.
"""
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.cpu import owe
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import WORK_RESCHED, Vcpu
from hypervisor.sched import yielding


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Without a sibling that waits it spins on: its time is its own."""
    if yielding.yield_to_sibling(vcpu):
        owe(WORK_RESCHED)
    return Outcome.SKIP
