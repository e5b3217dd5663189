"""Round robin: first come, first served, a quantum each; weights do not count."""
from typing import Final

from hypervisor.lang import struct, u32, u64
from hypervisor.model import Vcpu
from hypervisor.sched import run_queue
from hypervisor.sched.quantum import quantum


@struct
class RoundRobin:
    """Number of the latest ticket."""

    ticket: u64


state: Final = RoundRobin()


def woken(vcpu: Vcpu) -> None:
    """To the end of the line."""
    state.ticket += 1
    vcpu.ticket = state.ticket
    vcpu.slice_used = 0
    run_queue.insert(vcpu, vcpu.ticket)


def preempted(vcpu: Vcpu) -> None:
    """To the end of the line if its turn is over, else to the head."""
    if vcpu.slice_used >= quantum.ticks:
        woken(vcpu)
    else:
        run_queue.insert(vcpu, vcpu.ticket)


def left(vcpu: Vcpu) -> None:
    """Out of the line."""
    run_queue.remove(vcpu)


def choose(cpu: u32) -> Vcpu | None:
    """The first of the line of those that may run there."""
    return run_queue.first(cpu)


def take(vcpu: Vcpu) -> None:
    """It runs."""
    run_queue.remove(vcpu)


def charge(vcpu: Vcpu, ticks: u64, now: u64) -> None:
    """Its turn passes."""
    vcpu.slice_used += ticks


def yielded(vcpu: Vcpu) -> None:
    """Its turn is over."""
    vcpu.slice_used = quantum.ticks


def slice_of(vcpu: Vcpu, now: u64) -> u64:
    """The rest of its turn."""
    return quantum.ticks - min(vcpu.slice_used, quantum.ticks)
