"""Round robin: first come, first served, a slice each; weights do not count."""
from typing import Final

from hypervisor.lang import struct, u64
from hypervisor.model import Vcpu


@struct
class RoundRobinState:
    """Number of the latest ticket."""

    ticket: u64


state: Final = RoundRobinState()


def woken(vcpu: Vcpu) -> u64:
    """Key of a vCPU that becomes runnable: the end of the line."""
    state.ticket += 1
    return state.ticket


def preempted(vcpu: Vcpu) -> u64:
    """Key of a vCPU that goes back into the queue: the end of the line."""
    state.ticket += 1
    return state.ticket


def picked(vcpu: Vcpu) -> None:
    """It runs now; whoever waits came later."""


def charge(vcpu: Vcpu, ticks: u64) -> None:
    """Time is not counted."""


def yielded(vcpu: Vcpu, first: Vcpu) -> None:
    """It goes to the end of the line anyway."""
