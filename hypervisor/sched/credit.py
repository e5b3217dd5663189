"""A credit scheduler after Xen's first: whoever runs at a tick pays for the whole tick, and credits are given by weight.

A tick is 10 quanta, credits are given every third. Who has credit left is UNDER and comes before those that are OVER; who
wakes while UNDER is BOOSTed before both until a tick finds it running. Within a class: first come, first served, a tick each.
Sampling makes it unfair to gamers' neighbours: who sleeps at every tick never pays (tests/sched/test_simulated.py). It is here
to be compared with. vCPUs by the VM's weight.
"""
from typing import Final

from hypervisor.lang import i64, struct, u32, u64
from hypervisor.model import Vcpu
from hypervisor.sched import run_queue
from hypervisor.sched.cpus import host
from hypervisor.sched.quantum import quantum

TICK_QUANTA: Final = 10
TICKS_PER_ACCOUNT: Final = 3
CREDITS_PER_TICK: Final = 100
CREDITS_MOST: Final = 300  # neither saved nor owed beyond
BOOST: Final = 0
UNDER: Final = 1
OVER: Final = 2
CLASS_SHIFT: Final = 60


@struct
class Credit:
    """Latest place in the line; number of the tick up to which all is paid."""

    ticket: u64
    tick: u64


state: Final = Credit()


def woken(vcpu: Vcpu) -> None:
    """BOOST unless it owes."""
    vcpu.boosted = vcpu.credits >= 0
    _to_the_end(vcpu)


def preempted(vcpu: Vcpu) -> None:
    """To the end of its class when its turn is over, else to where it was."""
    if vcpu.slice_used >= _tick_ticks():
        _to_the_end(vcpu)
    else:
        run_queue.insert(vcpu, _key(vcpu))


def left(vcpu: Vcpu) -> None:
    """It keeps its credits."""
    run_queue.remove(vcpu)


def choose(cpu: u32) -> Vcpu | None:
    """The first of the best class of those that may run there."""
    return run_queue.first(cpu)


def take(vcpu: Vcpu) -> None:
    """It runs."""
    run_queue.remove(vcpu)


def charge(vcpu: Vcpu, ticks: u64, now: u64) -> None:
    """Pay for the ticks that found it running, and give credits when it is time."""
    vcpu.slice_used += ticks
    tick: u64 = now // _tick_ticks()
    begun: u64 = (now - ticks) // _tick_ticks()
    if tick != begun:
        vcpu.boosted = False
        vcpu.slice_used = _tick_ticks()
        vcpu.credits = max(vcpu.credits - i64(min(tick - begun, TICKS_PER_ACCOUNT) * CREDITS_PER_TICK), -CREDITS_MOST)
    if tick // TICKS_PER_ACCOUNT > state.tick // TICKS_PER_ACCOUNT:
        _account()
    state.tick = max(state.tick, tick)


def yielded(vcpu: Vcpu) -> None:
    """Its turn is over."""
    vcpu.slice_used = _tick_ticks()


def slice_of(vcpu: Vcpu, now: u64) -> u64:
    """Up to the next tick."""
    return _tick_ticks() - now % _tick_ticks()


def _tick_ticks() -> u64:
    return max(quantum.ticks * TICK_QUANTA, 1)


def _account() -> None:
    """Divide the credits of the period among those that compete, and put them into their classes."""
    weight: u64 = 0
    for vcpu in host.running:
        if vcpu is not None:
            weight += vcpu.weight
    for index in range(1, run_queue.queue.count + 1):
        weight += run_queue.at_index(u32(index)).weight
    for vcpu in host.running:
        if vcpu is not None:
            _give(vcpu, weight)
    for index in range(1, run_queue.queue.count + 1):
        _give(run_queue.at_index(u32(index)), weight)
    for index in range(1, run_queue.queue.count + 1):
        run_queue.place_again(u32(index), _key(run_queue.at_index(u32(index))))


def _give(vcpu: Vcpu, weight: u64) -> None:
    given: u64 = TICKS_PER_ACCOUNT * CREDITS_PER_TICK * host.count * vcpu.weight // weight
    vcpu.credits = min(vcpu.credits + i64(given), CREDITS_MOST)


def _to_the_end(vcpu: Vcpu) -> None:
    state.ticket += 1
    vcpu.ticket = state.ticket
    vcpu.slice_used = 0
    run_queue.insert(vcpu, _key(vcpu))


def _key(vcpu: Vcpu) -> u64:
    rank: u64 = BOOST if vcpu.boosted else UNDER if vcpu.credits >= 0 else OVER
    return (rank << CLASS_SHIFT) | vcpu.ticket
