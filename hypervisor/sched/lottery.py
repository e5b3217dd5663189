"""Lottery scheduling (Waldspurger and Weihl, 1994): each draw is won with a chance in proportion to the weight. O(n).

The generator is xorshift64 from a fixed seed: the same events give the same draws. vCPUs by the VM's weight.
"""
from typing import Final

from hypervisor.lang import struct, u64, wrap_u64
from hypervisor.model import Vcpu
from hypervisor.sched import run_queue
from hypervisor.sched.quantum import quantum

SEED: Final[u64] = 0x9E37_79B9_7F4A_7C15


@struct
class Lottery:
    """Tickets of all that wait; the generator's state, 0: not started."""

    tickets: u64
    generator: u64


state: Final = Lottery()


def woken(vcpu: Vcpu) -> None:
    """It takes part from the next draw."""
    state.tickets += vcpu.weight
    run_queue.insert(vcpu, 0)


def preempted(vcpu: Vcpu) -> None:
    """As when woken."""
    woken(vcpu)


def left(vcpu: Vcpu) -> None:
    """Its tickets are taken out, unless it runs."""
    if vcpu.run_queue_index != 0:
        state.tickets -= vcpu.weight
        run_queue.remove(vcpu)


def pick() -> Vcpu | None:
    """Draw."""
    if run_queue.queue.count == 0:
        return None
    winner: u64 = _draw() % state.tickets
    for index in range(1, run_queue.queue.count + 1):
        vcpu = run_queue.queue.slots[index].vcpu
        assert vcpu is not None
        if winner < vcpu.weight:
            state.tickets -= vcpu.weight
            run_queue.remove(vcpu)
            return vcpu
        winner -= vcpu.weight
    assert False


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
