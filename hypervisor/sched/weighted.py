"""Weighted fair share: CPU time divided by weight is what a vCPU has had; who has had least runs next.

A vCPU that slept starts where the others are, less a small lead, so that sleeping earns no claim on the past.
"""
from typing import Final

from hypervisor.lang import struct, u64
from hypervisor.model import Vcpu

WEIGHT_UNIT: Final = 1024  # virtual time runs at 1024 / weight ticks a tick
WAKE_LEAD: Final[u64] = 1 << 20  # virtual ticks
WEIGHT_MIN: Final = 1
WEIGHT_MAX: Final = 1 << 20


@struct
class WeightedState:
    """Virtual time of the vCPU picked last: no runnable one is far behind it."""

    now: u64


state: Final = WeightedState()


def woken(vcpu: Vcpu) -> u64:
    """Key of a vCPU that becomes runnable."""
    if vcpu.vruntime + WAKE_LEAD < state.now:
        vcpu.vruntime = state.now - WAKE_LEAD
    return vcpu.vruntime


def preempted(vcpu: Vcpu) -> u64:
    """Key of a vCPU that goes back into the queue."""
    return vcpu.vruntime


def picked(vcpu: Vcpu) -> None:
    """It runs now."""
    if vcpu.vruntime > state.now:
        state.now = vcpu.vruntime


def charge(vcpu: Vcpu, ticks: u64) -> None:
    """It has run for `ticks` TSC ticks, below 2^44."""
    assert vcpu.weight != 0
    vcpu.vruntime += ticks * WEIGHT_UNIT // vcpu.weight


def yielded(vcpu: Vcpu, first: Vcpu) -> None:
    """It gives up what it is ahead of the first that waits."""
    if vcpu.vruntime <= first.vruntime:
        vcpu.vruntime = first.vruntime + 1
