"""Stride scheduling (Waldspurger and Weihl, 1995): the least pass runs; a tick adds 1 / weight to it. vCPUs by the VM's weight.

Who leaves remembers how far its pass is from the global one, and takes it up again when it comes back.
"""
from typing import Final

from hypervisor.lang import struct, u32, u64, wrap_u64
from hypervisor.model import Vcpu
from hypervisor.sched import run_queue
from hypervisor.sched.quantum import quantum

UNIT: Final = 1 << 10
START: Final[u64] = 1 << 48  # so that nobody's pass comes below 0


@struct
class Stride:
    """The global pass less START goes at 1 / weight of all that compete."""

    passed: u64
    weight: u64


state: Final = Stride()


def woken(vcpu: Vcpu) -> None:
    """Begin at the remembered distance."""
    vcpu.stride_pass = wrap_u64(START + state.passed + vcpu.stride_pass)
    state.weight += vcpu.weight
    run_queue.insert(vcpu, vcpu.stride_pass)


def preempted(vcpu: Vcpu) -> None:
    """Wait by the pass it has come to."""
    run_queue.insert(vcpu, vcpu.stride_pass)


def left(vcpu: Vcpu) -> None:
    """Remember the distance."""
    run_queue.remove(vcpu)
    vcpu.stride_pass = wrap_u64(vcpu.stride_pass - START - state.passed)
    state.weight -= vcpu.weight


def choose(cpu: u32) -> Vcpu | None:
    """The least pass of those that may run there."""
    return run_queue.first(cpu)


def take(vcpu: Vcpu) -> None:
    """It runs."""
    run_queue.remove(vcpu)


def charge(vcpu: Vcpu, ticks: u64, now: u64) -> None:
    """Its pass and the global one go on."""
    vcpu.stride_pass += ticks * UNIT // vcpu.weight
    run_queue.move(vcpu, vcpu.stride_pass)
    state.passed += ticks * UNIT // state.weight


def yielded(vcpu: Vcpu) -> None:
    """Others come first once; nothing is given up."""


def slice_of(vcpu: Vcpu, now: u64) -> u64:
    """A quantum."""
    return quantum.ticks
