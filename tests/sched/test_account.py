"""Who pays: the vCPU that runs, the one that is served, or nobody."""

from collections.abc import Iterator

import pytest

from hypervisor import clock
from hypervisor.channel import records
from hypervisor.cpu import cpus
from hypervisor.lang import clear
from hypervisor.model import Vcpu, Vm, VmState
from hypervisor.sched import account, eevdf, policy, run_queue
from hypervisor.sched.cpus import host
from hypervisor.sched.policy import Policy


class Now:
    """The clock, set by hand."""

    value = 1000


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[Now]:
    at = Now()
    parts = (run_queue.queue, eevdf.state, policy.current, host, cpus[0], cpus[1])
    for part in parts:
        clear(part)
    monkeypatch.setattr(clock, "now", lambda: at.value)
    policy.start(1_000_000, 2)
    yield at
    for part in parts:
        clear(part)


def running(cpu: int, now: int) -> tuple[Vm, Vcpu]:
    vm, vcpu = Vm(), Vcpu()
    vm.state, vm.weight, vm.vcpu_count = VmState.RUNNING, 100, 1
    vm.vcpus[0], vcpu.vm, vcpu.weight = vcpu, vm, 100
    policy.enqueue(vcpu, now)
    assert policy.pick(cpu, now) == vcpu
    cpus[cpu].vcpu, vcpu.entered_at = vcpu, now
    return vm, vcpu


def test_all_cpus_are_charged_up_to_now(now: Now) -> None:
    (vm_a, a), (vm_b, b) = running(0, 1000), running(1, 1200)
    now.value = 5000
    assert account.charge_running() == 5000
    assert (a.cpu_time, b.cpu_time) == (4000, 3800)
    account.charge_running()
    assert (a.cpu_time, b.cpu_time, vm_a.weight, vm_b.weight) == (4000, 3800, 100, 100)


def test_a_clock_that_is_behind_charges_nothing(now: Now) -> None:
    """Time stamp counters of two CPUs differ by a few ticks."""
    vm, a = running(0, 1000)
    now.value = 990
    account.charge_running()
    assert (a.cpu_time, a.entered_at, vm.cap.left) == (0, 1000, 0)


def test_a_timer_is_paid_for_by_whom_it_serves(now: Now) -> None:
    (vm_a, a), (vm_b, b) = running(0, 1000), running(1, 1000)
    now.value = 2000
    since = account.begin(cpus[0])
    now.value = 2300
    since = account.end(cpus[0], since, b)
    now.value = 2350
    account.end(cpus[0], since, None)
    now.value = 3000
    account.charge_running()
    assert a.cpu_time == 1000 + 650, "neither b's timer nor what served nobody"
    assert vm_a != vm_b
    assert b.cpu_time == 2000 + 300
    assert cpus[0].overhead_ticks == 50 and cpus[1].overhead_ticks == 0


def test_what_was_charged_meanwhile_is_not_charged_twice(now: Now) -> None:
    """A timer that wakes a vCPU charges all that run on the way."""
    vm, a = running(0, 1000)
    now.value = 2000
    since = account.begin(cpus[0])
    now.value = 2400
    account.charge_running()
    now.value = 2500
    account.end(cpus[0], since, None)
    now.value = 2600
    account.charge_running()
    assert a.cpu_time + cpus[0].overhead_ticks == 1600 and vm.competitors == 1


@pytest.mark.parametrize("pinned", [False, True])
def test_the_host_is_told_what_a_vm_is_owed(now: Now, monkeypatch: pytest.MonkeyPatch, pinned: bool) -> None:
    """Two VMs of 300 and 100 on a CPU: one that has had all of it for a ms owes the quarter that the other was due."""
    policy.start(1_000_000, 1)
    monkeypatch.setattr(clock, "ns_of", lambda ticks: ticks)
    made, kept = [], []
    for weight in (300, 100):
        vm, vcpu = Vm(), Vcpu()
        vm.state, vm.weight, vm.vcpu_count = VmState.RUNNING, weight, 1
        vm.vcpus[0], vcpu.vm, vcpu.weight, vcpu.cpus = vcpu, vm, weight, int(pinned)
        policy.enqueue(vcpu, 1000)
        made.append(vm)
        kept.append(vcpu)
    running = policy.pick(0, 1000)
    assert running is not None and running.vm == made[0]
    assert [records.lag_ns(vm) for vm in made] == [0, 0]
    policy.charge(running, 1_000_000, 1_001_000)
    assert [records.lag_ns(vm) for vm in made] == [pytest.approx(lag, abs=3) for lag in (-250_000, 250_000)]
    policy.select(Policy.STRIDE, 1_001_000)
    assert [records.lag_ns(vm) for vm in made] == [0, 0]
