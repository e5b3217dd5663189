"""Hard caps: what a VM may use in a period, idle CPUs or not. Whatever the policy.

A cap is a percentage of one CPU and a period. In each period a VM may use percent * period; what it uses beyond (its last slice ran
over, on several CPUs at once) is taken from the next, and up to a quantum that it left unused it may use later. So over n periods it
uses at most n times that and once more. Who has used it up is out of competition until the next period begins.
"""
from typing import Final

from hypervisor.lang import i64, u32, u64
from hypervisor.model import Vm
from hypervisor.sched.quantum import quantum

PERCENT: Final = 100
PERIODS_MOST: Final = 1 << 20  # that can be given at once: whoever sleeps longer has left what it may leave anyway


def set_cap(vm: Vm, percent: u32, period: u64, now: u64) -> None:
    """From now on `percent` of a CPU (0: no cap) in each `period` TSC ticks, below 2^40. Its vCPUs do not compete meanwhile."""
    assert percent == 0 or 0 < period < 1 << 40
    vm.cap.percent = percent
    vm.cap.period = period
    vm.cap.left = i64(_budget(vm)) if percent != 0 else 0
    vm.cap.refill_at = now + period


def charge(vm: Vm, ticks: u64, now: u64) -> None:
    """It has used `ticks` before `now`."""
    if vm.cap.percent != 0:
        vm.cap.left -= i64(ticks)
        refill(vm, now)


def refill(vm: Vm, now: u64) -> None:
    """Give what the periods that began since the last time bring."""
    if vm.cap.percent == 0 or now < vm.cap.refill_at:
        return
    periods: u64 = (now - vm.cap.refill_at) // vm.cap.period + 1
    vm.cap.refill_at += periods * vm.cap.period
    budget = _budget(vm)
    vm.cap.left = min(vm.cap.left + i64(min(periods, PERIODS_MOST) * budget), i64(budget + quantum.ticks))


def slice_of(vm: Vm, now: u64) -> u64:
    """How long a VM that has a cap may run on one CPU: what is left, and not beyond the period."""
    return min(u64(max(vm.cap.left, 0)), vm.cap.refill_at - min(now, vm.cap.refill_at))


def exhausted(vm: Vm) -> bool:
    """Has it used up what this period gives?"""
    return vm.cap.percent != 0 and vm.cap.left <= 0


def _budget(vm: Vm) -> u64:
    return vm.cap.period * vm.cap.percent // PERCENT
