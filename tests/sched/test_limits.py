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
    limits.pin(vcpus[1], 0b0010, now)
    limits.pin(vcpus[3], 0b0001, now)
    turn(1)
    before = [vcpu.cpu_time for vcpu in vcpus]
    for _ in range(100):
        turn(1)
        assert all(running is None or running != vcpus[1] or running.host_cpu == 1 for running in host.running)
    assert all(vcpu.cpu_time > then for vcpu, then in zip(vcpus, before)), "nobody is left out"
    limits.set_cpus(table(*vms), vms[0], 0, now)
    assert host.pinned
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
    """Those were put in order when nobody was bound: another CPU finds each of them in that order, and not the new one."""
    policy.select(which, 0)
    vms = [vm_of(weight=100 + number * 7 % 30) for number in range(30)]
    bound = vm_of()
    order = sorted((vm.weight for vm in vms), reverse=True)  # whose request is due first
    for vm in vms:
        policy.enqueue(the_vcpu(vm), 0)
    limits.bind_new(0)
    bound.cpus = 0b0001
    policy.enqueue(the_vcpu(bound), 0)
    for place, weight in enumerate(order):
        running = policy.pick(1, 0)
        assert running is not None and running.vm != bound
        assert which is not policy.Policy.EEVDF or running.weight == weight or place > 20, "when few are left they weigh alike: a CPU each"
        policy.dequeue(running, 0)
    assert policy.pick(1, 0) is None and policy.pick(0, 0) == bound.vcpus[0]


@pytest.mark.parametrize("which", list(policy.Policy))
@pytest.mark.parametrize("pinned", [False, True])
def test_one_that_is_bound_elsewhere_while_it_runs_is_not_left_out(which: policy.Policy, pinned: bool) -> None:
    """The CPU that it may run on has picked before it waits, and would let its own vCPU run without end."""
    policy.start(MS, 2)
    policy.select(which, 0)
    a, b = vm_of(), vm_of()
    for cpu, vm in enumerate((a, b)):
        policy.enqueue(the_vcpu(vm), 0)
        assert policy.pick(cpu, 0) == the_vcpu(vm) and policy.slice_of(the_vcpu(vm), 0) == policy.UNLIMITED
    if pinned:
        limits.pin(the_vcpu(a), 0b10, 0)
    else:
        limits.set_cpus(table(a, b), a, 0b10, 0)
    policy.requeue(the_vcpu(b), 0)
    assert policy.pick(1, 0) == the_vcpu(b) and policy.stranded(0) == 0 and policy.slice_of(the_vcpu(b), 0) == policy.UNLIMITED
    policy.requeue(the_vcpu(a), 0)
    assert policy.pick(0, 0) is None and policy.stranded(0) == 0b10
    seen = []
    for now in range(MS, 100 * MS, MS):
        running = host.running[1]
        assert running is not None
        policy.charge(running, MS, now)
        policy.requeue(running, now)
        seen.append(policy.pick(1, now))
    assert the_vcpu(a) in seen and the_vcpu(b) in seen


def test_pins_that_cannot_be_kept_are_refused() -> None:
    vm = vm_of(2)
    assert limits.pin_problem(vm, 1, 0b1000) == ""
    assert "no such vCPU" in limits.pin_problem(vm, 2, 0b1) and "no such vCPU" in limits.pin_problem(vm, 1 << 40, 0b1)
    for set_ in (0, 0b11, 0b1_0000):
        assert "one CPU" in limits.pin_problem(vm, 0, set_)
    vm.cpus = 0b0011
    assert "one CPU" in limits.pin_problem(vm, 0, 0b0100) and limits.pin_problem(vm, 0, 0b0010) == ""
    limits.pin(the_vcpu(vm), 0b10, 0)
    assert "pinned" in limits.problem(table(vm), vm, 0, 5, 0b11)
    limits.set_cpus(table(vm), vm, 0, 0)
    assert not host.pinned and the_vcpu(vm).cpus == 0 and limits.problem(table(vm), vm, 0, 5, 0) == ""
    vm.reserved = 5
    assert "reservation" in limits.pin_problem(vm, 0, 0b1)


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


def test_a_new_period_lets_a_few_in_at_a_time_and_others_first() -> None:
    """None of a VM of many vCPUs is left out: not those that a short period ends before, not those that wait for another piece."""
    vm = vm_of(20)
    policy.select(policy.Policy.EEVDF, 0)
    limits.set_cap(vm, 60, 100 * MS, 0)
    members = [member for member in vm.vcpus if member is not None]
    for member in members:
        policy.enqueue(member, 0)

    def use_up(now: int) -> None:
        picked = policy.pick(0, now)
        assert picked is not None
        policy.charge(picked, 60 * MS, now)
        policy.requeue(picked, now)
        assert cap.exhausted(vm) and all(member.parked for member in members)

    use_up(60 * MS)
    assert not policy.is_refilling(vm)
    policy.refill(vm, 100 * MS)
    for left in (12, 4):
        assert sum(member.parked for member in members) == left and policy.is_refilling(vm)
        policy.refill(vm, 100 * MS)
    assert not any(member.parked for member in members) and not policy.is_refilling(vm)
    came: set[int] = set()
    for period in range(2, 80):
        use_up(period * 100 * MS - 30 * MS)
        policy.refill(vm, period * 100 * MS)
        came |= {index for index, member in enumerate(members) if not member.parked}
    assert came == set(range(20)), "the first piece of each period is others'"
