"""Lottery scheduling (Waldspurger and Weihl, 1994): each draw is won with a chance in proportion to the weight. O(n).

The generator is xorshift64 from a fixed seed: the same events give the same draws. vCPUs by the VM's weight.
"""
from typing import Final

from hypervisor.lang import struct, u32, u64, wrap_u64
from hypervisor.model import Vcpu
from hypervisor.sched import cpus, run_queue
from hypervisor.sched.quantum import quantum

SEED: Final[u64] = 0x9E37_79B9_7F4A_7C15


@struct
class Lottery:
    """The generator's state, 0: not started."""

    generator: u64


state: Final = Lottery()


def woken(vcpu: Vcpu) -> None:
    """It takes part from the next draw."""
    run_queue.insert(vcpu, 0)


def preempted(vcpu: Vcpu) -> None:
    """As when woken."""
    woken(vcpu)


def left(vcpu: Vcpu) -> None:
    """Its tickets are taken out."""
    run_queue.remove(vcpu)


def choose(cpu: u32) -> Vcpu | None:
    """Draw among those that may run there."""
    tickets: u64 = 0
    for index in range(1, run_queue.queue.count + 1):
        vcpu = run_queue.at_index(u32(index))
        if cpus.may_run_on(vcpu, cpu):
            tickets += vcpu.weight
    if tickets == 0:
        return None
    winner: u64 = _draw() % tickets
    for index in range(1, run_queue.queue.count + 1):
        vcpu = run_queue.at_index(u32(index))
        if cpus.may_run_on(vcpu, cpu):
            if winner < vcpu.weight:
                return vcpu
            winner -= vcpu.weight
    assert False


def take(vcpu: Vcpu) -> None:
    """It runs."""
    run_queue.remove(vcpu)


def charge(vcpu: Vcpu, ticks: u64, now: u64) -> None:
    """Draws alone decide."""


def yielded(vcpu: Vcpu) -> None:
    """Others come first once."""


def slice_of(vcpu: Vcpu, now: u64) -> u64:
    """A quantum."""
    return quantum.ticks


def _draw() -> u64:
    x: u64 = state.generator
    if x == 0:
        x = SEED
    x = x ^ wrap_u64(x << 13)
    x = x ^ (x >> 7)
    x = x ^ wrap_u64(x << 17)
    state.generator = x
    return x
