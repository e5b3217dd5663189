"""The policies' interface on one CPU: shares, order, sleepers, changes at run time; the heap and the tree under them."""
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor.lang import clear
from hypervisor.model import FairTree, Share, Vcpu, VcpuState, Vm, VmState
from hypervisor.sched import bvt, cpus, credit, eevdf, fair_tree, lottery, policy, round_robin, run_queue, stride, wake, yielding
from hypervisor.sched.policy import Policy
from hypervisor.status import Status

SLICE = 1_000_000
alive: list[object] = []  # queues hold addresses: something must hold the structs
clock = 0


def reset() -> None:
    for part in (run_queue.queue, bvt.state, credit.state, eevdf.state, lottery.state, round_robin.state, stride.state,
                 policy.current, cpus.host):
        clear(part)
    policy.start(SLICE, 1)
    alive.clear()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    reset()
    yield
    reset()


def vm_of(weight: int, *vcpus: Vcpu) -> Vm:
    vm = Vm()
    vm.state, vm.weight = VmState.RUNNING, weight
    for index, vcpu in enumerate(vcpus):
        vm.vcpus[index] = vcpu
        vcpu.vm, vcpu.weight = vm, weight
    alive.extend((vm, *vcpus))
    return vm


def take_first() -> Vcpu | None:
    vcpu = run_queue.first(0)
    if vcpu is not None:
        run_queue.remove(vcpu)
    return vcpu


def vcpus(*weights: int) -> list[Vcpu]:
    """Each of a VM of its own."""
    made = []
    for index, weight in enumerate(weights):
        vcpu = Vcpu()
        vcpu.index = index
        vm_of(weight, vcpu)
        policy.enqueue(vcpu, clock)
        made.append(vcpu)
    return made


def run(slices: int) -> list[int]:
    """Who ran, in order, each as long as its policy says."""
    global clock
    order = []
    for _ in range(slices):
        vcpu = policy.pick(0, clock)
        assert vcpu is not None
        order.append(vcpu.index)
        ticks = min(policy.slice_of(vcpu, clock), SLICE)
        clock += ticks
        policy.charge(vcpu, ticks, clock)
        policy.requeue(vcpu, clock)
    return order


@pytest.mark.parametrize("which", list(Policy))
def test_equal_weights_share_alike(which: Policy) -> None:
    assert policy.select(which, clock) == Status.OK
    made = vcpus(5, 5, 5)
    run(900)
    slack = 0.15 if which is Policy.LOTTERY else 0.03
    total = sum(vcpu.cpu_time for vcpu in made)
    assert all(abs(vcpu.cpu_time * 3 / total - 1) < slack for vcpu in made)


@pytest.mark.parametrize("which", [Policy.EEVDF, Policy.STRIDE, Policy.LOTTERY, Policy.BVT, Policy.CREDIT])
def test_weights_count(which: Policy) -> None:
    assert policy.select(which, clock) == Status.OK
    made = vcpus(100, 200, 500)
    run(1600)
    total = sum(vcpu.cpu_time for vcpu in made)
    for vcpu in made:
        assert vcpu.cpu_time / total == pytest.approx(vcpu.weight / 800, rel=0.15)


@pytest.mark.parametrize("which", [Policy.EEVDF, Policy.STRIDE, Policy.BVT])
def test_a_sleeper_gains_no_claim(which: Policy) -> None:
    assert policy.select(which, clock) == Status.OK
    made = vcpus(100, 100)
    policy.dequeue(made[1], clock)
    run(1000)
    policy.enqueue(made[1], clock)
    assert 9 <= run(20).count(1) <= 13


def test_round_robin_ignores_weights() -> None:
    assert policy.select(Policy.ROUND_ROBIN, clock) == Status.OK
    vcpus(1, 1000, 10)
    assert run(9) == [0, 1, 2] * 3


@pytest.mark.parametrize("before", list(Policy))
@pytest.mark.parametrize("after", list(Policy))
def test_policy_changes_while_vcpus_wait_and_one_runs(before: Policy, after: Policy) -> None:
    assert policy.select(before, clock) == Status.OK
    made = vcpus(100, 100, 100)
    run(50)
    running = policy.pick(0, clock)
    assert running is not None
    assert policy.select(after, clock) == Status.OK
    policy.charge(running, 1, clock + 1)
    policy.requeue(running, clock)
    had = [vcpu.cpu_time for vcpu in made]
    assert set(run(200)) == {0, 1, 2}
    for vcpu, time in zip(made, had):
        if after is not Policy.LOTTERY:
            assert vcpu.cpu_time - time == pytest.approx(sum(v.cpu_time for v in made) / 3 - sum(had) / 3, rel=0.2)
        policy.dequeue(vcpu, clock)
    assert not policy.contended() and policy.pick(0, clock) is None


def test_no_such_policy() -> None:
    assert policy.select(policy.POLICIES, clock) == Status.BAD_ARGUMENT


@pytest.mark.parametrize("which", list(Policy))
def test_weight_changes_while_vcpus_wait(which: Policy) -> None:
    assert policy.select(which, clock) == Status.OK
    made = vcpus(100, 100)
    run(10)
    vm = made[0].vm
    assert vm is not None
    assert policy.set_weight(vm, 300, clock) == Status.OK
    had = [vcpu.cpu_time for vcpu in made]
    run(1200)
    a, b = (vcpu.cpu_time - time for vcpu, time in zip(made, had))
    assert a / b == pytest.approx(1 if which is Policy.ROUND_ROBIN else 3, rel=0.15)


@pytest.mark.parametrize("weight", [0, policy.WEIGHT_MAX + 1])
def test_no_such_weight(weight: int) -> None:
    assert policy.set_weight(vm_of(5), weight, clock) == Status.BAD_ARGUMENT


@pytest.mark.parametrize("which", list(Policy))
def test_yield_lets_the_others_first(which: Policy) -> None:
    assert policy.select(which, clock) == Status.OK
    vcpus(100, 100, 100)
    run(7)
    running = policy.pick(0, clock)
    assert running is not None
    policy.charge(running, 1, clock + 1)
    yielding.yield_to_others(running)
    policy.requeue(running, clock)
    following = policy.pick(0, clock)
    assert following is not None and following.index != running.index
    policy.requeue(following, clock)
    assert {vcpu for vcpu in run(60)} == {0, 1, 2}


def test_yield_with_nobody_waiting_goes_on() -> None:
    made = vcpus(100)
    running = policy.pick(0, clock)
    assert running is not None
    yielding.yield_to_others(running)
    policy.requeue(running, clock)
    assert policy.pick(0, clock) == made[0]


def test_siblings_share_what_their_vm_has() -> None:
    """A VM of four vCPUs gets no more than one of the same weight with a single vCPU."""
    four = [Vcpu() for _ in range(4)]
    one = Vcpu()
    one.index = 9
    vm_of(100, *four)
    vm_of(100, one)
    for vcpu in (*four, one):
        policy.enqueue(vcpu, clock)
    run(800)
    assert one.cpu_time == pytest.approx(sum(vcpu.cpu_time for vcpu in four), abs=SLICE)
    assert all(vcpu.cpu_time == pytest.approx(one.cpu_time / 4, abs=2 * SLICE) for vcpu in four)


def test_yield_prefers_a_sibling_when_nobody_else_waits() -> None:
    pair = [Vcpu(), Vcpu()]
    pair[1].index = 1
    vm_of(100, *pair)
    for vcpu in pair:
        policy.enqueue(vcpu, clock)
    running = policy.pick(0, clock)
    assert running is not None
    yielding.yield_to_others(running)
    policy.requeue(running, clock)
    following = policy.pick(0, clock)
    assert following is not None and following != running


@pytest.mark.parametrize("which", list(Policy))
def test_a_spinning_vcpu_yields_to_the_sibling_that_waits_longest(which: Policy) -> None:
    """Whatever the policy would choose, and at the VM's own expense."""
    assert policy.select(which, clock) == Status.OK
    at = clock + 1000
    trio = [Vcpu() for _ in range(3)]
    vm = vm_of(100, *trio)
    vm.vcpu_count = 3
    other = vcpus(100)[0]
    for delay, vcpu in enumerate(trio):
        policy.enqueue(vcpu, at + delay)
    picked = policy.pick(0, at)
    while picked != trio[0]:
        assert picked is not None
        policy.charge(picked, SLICE, at + 9)
        policy.requeue(picked, at + 9)
        picked = policy.pick(0, at + 9)
    longest = trio[1] if trio[1].waiting_since <= trio[2].waiting_since else trio[2]
    assert yielding.yield_to_sibling(trio[0])
    policy.requeue(trio[0], at + 10)
    following = policy.pick(0, at + 10)
    assert following is not None and following.waiting_since == 0 and following.running
    assert following == longest
    policy.requeue(following, at + 20)
    for vcpu in (*trio, other):
        policy.dequeue(vcpu, clock)
    policy.enqueue(trio[0], at)
    assert policy.pick(0, at) == trio[0]
    assert not yielding.yield_to_sibling(trio[0]), "nobody waits for it"


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.integers(0, 60)), max_size=80), st.integers(-5, 70),
       st.integers(0, 2**64 - 1))
def test_tree(steps: list[tuple[bool, int, int]], average: int, start: int) -> None:
    """Whatever is put in and taken out, the pick is what a look at everyone finds; wherever virtual time wraps."""
    tree, inside = FairTree(), list[Share]()
    kept = []
    tree.average = (start + average) % 2**64
    for insert, time, request in steps:
        if insert or not inside:
            node = Share()
            node.virtual_time, node.deadline = (start + time) % 2**64, (start + time + request) % 2**64
            fair_tree.insert(tree, node)
            inside.append(node)
            kept.append(node)
        else:
            fair_tree.remove(tree, inside.pop((time * 61 + request) % len(inside)))

        def place(number: int) -> int:
            return (number - start + 1000) % 2**64

        eligible = [node for node in inside if place(node.virtual_time) <= place(tree.average)]
        found = fair_tree.pick(tree, 0)
        if eligible:
            assert found is not None and place(found.virtual_time) <= place(tree.average)
            assert place(found.deadline) == min(place(node.deadline) for node in eligible)
        elif inside:
            assert found is not None
            assert place(found.virtual_time) == min(place(node.virtual_time) for node in inside)
        else:
            assert found is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, (1 << 64) - 1)), max_size=60))
def test_heap(steps: list[tuple[bool, int]]) -> None:
    """Whatever is inserted and taken out of the middle, the least key leaves first and nobody is lost."""
    clear(run_queue.queue)
    inside: dict[int, tuple[int, Vcpu]] = {}
    for number, (insert, key) in enumerate(steps):
        if insert or not inside:
            vcpu = Vcpu()
            vcpu.index = number
            run_queue.insert(vcpu, key)
            inside[number] = (key, vcpu)
        else:
            run_queue.remove(inside.pop(sorted(inside)[key % len(inside)])[1])
    keys = []
    while (least := take_first()) is not None:
        keys.append(inside.pop(least.index)[0])
        assert least.run_queue_index == 0
    assert not inside and all(a <= b for a, b in pairwise(keys))


@pytest.mark.parametrize("state, woken", [
    (VcpuState.BLOCKED, True), (VcpuState.WAITING, True), (VcpuState.STOPPED, False), (VcpuState.RUNNABLE, False)])
def test_wake(state: VcpuState, woken: bool) -> None:
    vcpu = Vcpu()
    vm_of(1, vcpu)
    vcpu.state = state
    wake.wake(vcpu)
    assert policy.contended() == woken and (vcpu.state == VcpuState.RUNNABLE) == (woken or state == VcpuState.RUNNABLE)


def test_sleep_takes_out_of_the_queue() -> None:
    made = vcpus(1)
    wake.sleep(made[0], VcpuState.BLOCKED)
    assert not policy.contended() and made[0].state == VcpuState.BLOCKED
