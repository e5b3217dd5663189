"""Borrowed virtual time (Duda and Cheriton, 1999): the least effective virtual time runs, which a woken vCPU may borrow from.

A vCPU that wakes is warped: its effective virtual time lies WARP quanta of its weight back, until it has run for a quantum.
The scheduler's virtual time is that of who was picked last, never going back. vCPUs by the VM's weight.
"""
from typing import Final

from hypervisor.lang import struct, u32, u64
from hypervisor.model import Vcpu
from hypervisor.sched import run_queue
from hypervisor.sched.quantum import quantum

UNIT: Final = 1 << 10
WARP: Final = 2
START: Final[u64] = 1 << 48


@struct
class Bvt:
    """Virtual time less START."""

    now: u64


state: Final = Bvt()


def woken(vcpu: Vcpu) -> None:
    """It gets no credit for sleeping, but is warped."""
    vcpu.virtual_time = max(vcpu.virtual_time, START + state.now)
    vcpu.boosted = True
    vcpu.slice_used = 0
    run_queue.insert(vcpu, _effective(vcpu))


def preempted(vcpu: Vcpu) -> None:
    """Wait by its effective virtual time."""
    run_queue.insert(vcpu, _effective(vcpu))


def left(vcpu: Vcpu) -> None:
    """Its virtual time stands still."""
    run_queue.remove(vcpu)


def choose(cpu: u32) -> Vcpu | None:
    """The least effective virtual time of those that may run there."""
    return run_queue.first(cpu)


def take(vcpu: Vcpu) -> None:
    """It runs."""
    state.now = max(state.now, vcpu.virtual_time - START)
    run_queue.remove(vcpu)


def charge(vcpu: Vcpu, ticks: u64, now: u64) -> None:
    """Virtual time goes at 1 / weight; the warp wears off."""
    vcpu.virtual_time += ticks * UNIT // vcpu.weight
    vcpu.slice_used += ticks
    if vcpu.slice_used >= quantum.ticks:
        vcpu.boosted = False
    run_queue.move(vcpu, _effective(vcpu))


def yielded(vcpu: Vcpu) -> None:
    """It is not warped any more."""
    vcpu.boosted = False


def slice_of(vcpu: Vcpu, now: u64) -> u64:
    """The context switch allowance: a quantum."""
    return quantum.ticks


def _effective(vcpu: Vcpu) -> u64:
    borrowed: u64 = WARP * quantum.ticks * UNIT // vcpu.weight if vcpu.boosted else 0
    return vcpu.virtual_time - min(borrowed, vcpu.virtual_time)
