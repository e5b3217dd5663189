"""Policies over a simulated CPU: shares, order, sleepers, and the heap under them."""
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor.cpu import boot_cpu
from hypervisor.lang import clear
from hypervisor.model import Vcpu, VcpuState, Vm, VmState
from hypervisor.sched import policy, round_robin, run_queue, wake, weighted
from hypervisor.status import Status

SLICE = 1_000_000
alive: list[Vcpu] = []  # the queue holds addresses: something must hold the structs


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    for part in (run_queue.queue, weighted.state, round_robin.state, policy.current, boot_cpu):
        clear(part)
    yield
    for part in (run_queue.queue, weighted.state, round_robin.state, policy.current, boot_cpu):
        clear(part)


def vcpus(*weights: int) -> list[Vcpu]:
    made = []
    for index, weight in enumerate(weights):
        vcpu = Vcpu()
        vcpu.index, vcpu.weight = index, weight
        policy.enqueue(vcpu)
        made.append(vcpu)
    alive.extend(made)
    return made


def run(slices: int, ticks: int = SLICE) -> list[int]:
    """Who ran, in order, each for a slice."""
    order = []
    for _ in range(slices):
        vcpu = policy.pick()
        assert vcpu is not None
        order.append(vcpu.index)
        policy.charge(vcpu, ticks)
        policy.requeue(vcpu)
    return order


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=8))
def test_weighted_share(weights: list[int]) -> None:
    """After any number of slices nobody is more than a slice from its share."""
    for part in (run_queue.queue, weighted.state):
        clear(part)
    made = vcpus(*weights)
    run(400)
    total = sum(vcpu.cpu_time for vcpu in made)
    for vcpu in made:
        share = total * vcpu.weight / sum(weights)
        assert abs(vcpu.cpu_time - share) <= SLICE * (len(made) + 1)


def test_equal_weights_take_turns() -> None:
    vcpus(5, 5, 5)
    assert sorted(run(3)) == [0, 1, 2] and len(set(run(3))) == 3


def test_a_sleeper_gains_no_claim() -> None:
    made = vcpus(100, 100)
    policy.dequeue(made[1])
    run(1000)
    policy.enqueue(made[1])
    order = run(20)
    assert 9 <= order.count(1) <= 13


def test_round_robin_ignores_weights() -> None:
    assert policy.select(policy.Policy.ROUND_ROBIN) == Status.OK
    vcpus(1, 1000, 10)
    assert run(9) == [0, 1, 2] * 3


def test_policy_changes_while_vcpus_wait() -> None:
    made = vcpus(1, 1000, 10)
    run(50)
    assert policy.select(policy.Policy.ROUND_ROBIN) == Status.OK
    turn = run(3)
    assert sorted(turn) == [0, 1, 2] and run(6) == turn * 2
    assert policy.select(policy.Policy.WEIGHTED) == Status.OK
    before = made[1].cpu_time
    run(300)
    assert made[1].cpu_time - before > 250 * SLICE


def test_no_such_policy() -> None:
    assert policy.select(2) == Status.BAD_ARGUMENT


def test_yield_lets_the_others_first() -> None:
    made = vcpus(100, 100)
    policy.charge(made[1], 3 * SLICE)
    policy.dequeue(made[1])
    policy.enqueue(made[1])
    running = policy.pick()
    assert running is not None and running.index == 0
    policy.yield_to_others(running)
    policy.requeue(running)
    following = policy.pick()
    assert following is not None and following.index == 1


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
    while (least := run_queue.first()) is not None:
        keys.append(inside.pop(least.index)[0])
        run_queue.remove(least)
        assert least.run_queue_index == 0
    assert not inside and all(a <= b for a, b in pairwise(keys))


@pytest.mark.parametrize("state, woken", [
    (VcpuState.BLOCKED, True), (VcpuState.WAITING, True), (VcpuState.STOPPED, False), (VcpuState.RUNNABLE, False)])
def test_wake(state: VcpuState, woken: bool) -> None:
    vm, vcpu = Vm(), Vcpu()
    vm.state = VmState.RUNNING
    vcpu.vm, vcpu.weight, vcpu.state = vm, 1, state
    wake.wake(vcpu)
    assert policy.contended() == woken and (vcpu.state == VcpuState.RUNNABLE) == (woken or state == VcpuState.RUNNABLE)


def test_sleep_takes_out_of_the_queue() -> None:
    made = vcpus(1)
    wake.sleep(made[0], VcpuState.BLOCKED)
    assert not policy.contended() and made[0].state == VcpuState.BLOCKED
