"""What admission refuses, and limits changed while vCPUs wait and run."""

from collections.abc import Iterator

import pytest

from hypervisor.lang import clear
from hypervisor.model import Vcpu, Vm, VmState
from hypervisor.sched import cap, eevdf, limits, policy, run_queue
from hypervisor.sched.cpus import host

MS = 1_000_000
kept: list[object] = []


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    for part in (run_queue.queue, eevdf.state, policy.current, host):
        clear(part)
    policy.start(MS, 4)
    yield
    for part in (run_queue.queue, eevdf.state, policy.current, host):
        clear(part)
    kept.clear()


def vm_of(vcpus: int = 1, weight: int = 100) -> Vm:
    vm = Vm()
    vm.state, vm.weight, vm.vcpu_count = VmState.RUNNING, weight, vcpus
    for index in range(vcpus):
        vcpu = Vcpu()
        vcpu.vm, vcpu.weight = vm, weight
        vm.vcpus[index] = vcpu
        kept.append(vcpu)
    kept.append(vm)
    return vm


def table(*vms: Vm) -> list[Vm | None]:
    return [*vms, *([None] * (64 - len(vms)))]


def test_reservations_that_cannot_be_kept_are_refused() -> None:
    vms = [vm_of(4) for _ in range(3)]
    assert limits.problem(table(*vms), vms[0], 0, 400, 0) != "", "a tenth is for the others"
    vms[0].reserved = 200
    assert limits.problem(table(*vms), vms[1], 0, 160, 0) == ""
    assert "cannot keep" in limits.problem(table(*vms), vms[1], 0, 161, 0)
    vms[0].state = VmState.ENDED
    assert limits.problem(table(*vms), vms[1], 0, 360, 0) == "", "what an ended VM was promised is free again"
    assert "has not the vCPUs" in limits.problem(table(*vms), vms[1], 0, 401, 0)
    assert "has not the vCPUs" in limits.problem(table(*vms), vms[1], 0, 101, 0b1)
    assert "above its cap" in limits.problem(table(*vms), vms[1], 50, 60, 0)


def test_reservations_inside_a_set_count_for_that_set() -> None:
    vms = [vm_of(2) for _ in range(3)]
    vms[0].cpus, vms[0].reserved = 0b0011, 100
    assert limits.problem(table(*vms), vms[1], 0, 80, 0b0001) == ""
    assert "cannot keep" in limits.problem(table(*vms), vms[1], 0, 81, 0b0011)
    assert limits.problem(table(*vms), vms[1], 0, 180, 0b1100) == ""


@pytest.mark.parametrize("mine, theirs, apart", [(0b0011, 0b0110, False), (0b0011, 0b0001, True), (0b0001, 0b0010, True), (0, 0b0110, True)])
def test_sets_that_overlap_are_refused(mine: int, theirs: int, apart: bool) -> None:
    a, b = vm_of(), vm_of()
    b.cpus = theirs
    assert (limits.problem(table(a, b), a, 0, 0, mine) == "") == apart


@pytest.mark.parametrize("set_, percent", [(0b1_0000, 0), (0, 401)])
def test_what_the_machine_has_not_is_refused(set_: int, percent: int) -> None:
    vm = vm_of()
    assert limits.problem(table(vm), vm, percent, 0, set_) != ""


@pytest.mark.parametrize("which", list(policy.Policy))
def test_limits_change_while_vcpus_wait_and_run(which: policy.Policy) -> None:
    vms = [vm_of(2), vm_of(2), vm_of(3)]
    policy.select(which, 0)
    now = 0
    vcpus = [vcpu for vm in vms for vcpu in vm.vcpus if vcpu is not None]
    for vcpu in vcpus:
        policy.enqueue(vcpu, now)
    limits.set_cap(vms[0], 50, 100 * MS, now)

    def turn(rounds: int) -> None:
        nonlocal now
        for _ in range(rounds):
            for cpu in range(4):
                running = host.running[cpu]
                if running is not None:
                    policy.requeue(running, now)
                policy.pick(cpu, now)
            now += MS
            for running in host.running:
                if running is not None:
                    policy.charge(running, MS, now)
            for vm in vms:
                if cap.exhausted(vm) and now >= vm.cap.refill_at:
                    policy.refill(vm, now)

    turn(400)
    used = sum(vcpu.cpu_time for vcpu in vcpus[:2])
    assert used == pytest.approx(200 * MS, abs=55 * MS), "half a CPU"
    limits.set_cap(vms[0], 0, 0, now)
    limits.set_cpus(table(*vms), vms[1], 0b0001, now)
    turn(1)
    for _ in range(100):
        turn(1)
        assert all(running is None or running.vm != vms[1] or running.host_cpu == 0 for running in host.running)
    limits.set_cpus(table(*vms), vms[1], 0, now)
    limits.set_reservation(vms[2], 200, now)
    assert not host.pinned
    before = [vcpu.cpu_time for vcpu in vcpus]
    turn(300)
    if which is policy.Policy.EEVDF:
        assert sum(vcpu.cpu_time for vcpu in vcpus[4:]) - sum(before[4:]) >= 598 * MS
    for vcpu in vcpus:
        policy.dequeue(vcpu, now)
    assert not policy.contended() and all(running is None for running in host.running)


@pytest.mark.parametrize("which", list(policy.Policy))
def test_a_bound_vm_is_made_while_others_wait(which: policy.Policy) -> None:
    """Those were put in order when nobody was bound: another CPU finds each of them, and not the new one."""
    policy.select(which, 0)
    vms = [vm_of() for _ in range(30)]
    bound = vm_of()
    for vm in vms:
        policy.enqueue(the_vcpu(vm), 0)
    limits.bind_new(0)
    bound.cpus = 0b0001
    policy.enqueue(the_vcpu(bound), 0)
    for _ in vms:
        running = policy.pick(1, 0)
        assert running is not None and running.vm != bound
        policy.dequeue(running, 0)
    assert policy.pick(1, 0) is None and policy.pick(0, 0) == bound.vcpus[0]


def the_vcpu(vm: Vm) -> Vcpu:
    """Its first one."""
    vcpu = vm.vcpus[0]
    assert vcpu is not None
    return vcpu


def test_steal_time_is_what_a_vcpu_waits() -> None:
    clear(host)
    policy.start(MS, 1)
    policy.select(policy.Policy.ROUND_ROBIN, 0)
    a, b = vm_of(), vm_of()
    first, second = a.vcpus[0], b.vcpus[0]
    assert first is not None and second is not None
    policy.enqueue(first, 10)
    policy.enqueue(second, 10)
    assert policy.pick(0, 10) == first and first.steal_ticks == 0
    policy.charge(first, MS, MS + 10)
    policy.requeue(first, MS + 10)
    assert policy.pick(0, MS + 10) == second and second.steal_ticks == MS
    policy.dequeue(second, MS + 10)
    assert policy.pick(0, MS + 60) == first and first.steal_ticks == 50


def test_a_clock_that_is_behind_steals_nothing() -> None:
    """It began to wait by the clock of a CPU that is a few ticks ahead of the one that picks it."""
    first = vm_of().vcpus[0]
    assert first is not None
    policy.enqueue(first, 1000)
    assert policy.pick(1, 990) == first and first.steal_ticks == 0
