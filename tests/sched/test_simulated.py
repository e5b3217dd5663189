"""Theory against the simulator: lag, joins and leaves, starvation, an attack; and both lives decide alike."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor.sched import eevdf, virtual_time
from hypervisor.sched.policy import Policy
from krait import sched_sim
from krait.sched_sim import Machine, Member, Outcome, Simulation, gamer, sleeper, spin
from krait.sched_worlds import QUANTUM, Compiled, Interpreted, World

WEIGHT = st.integers(1, 1 << 20)
LIKELY = st.integers(10, 1000)
SLACK = 1e-3  # ticks are whole, virtual time is rounded down

Behaviours = st.one_of(
    st.just(("spin", 0, 0)),
    st.tuples(st.just("sleep"), st.integers(QUANTUM // 10, 5 * QUANTUM), st.integers(QUANTUM // 10, 20 * QUANTUM)),
    st.just(("game", 0, 0)),
)


def behaviour(kind: str, run: int, pause: int, seed: int) -> sched_sim.Behaviour:
    match kind:
        case "spin":
            return spin()
        case "sleep":
            return sleeper(run, pause, seed)
        case _:
            return gamer()


Shape = list[tuple[int, list[tuple[tuple[str, int, int], int, int]]]]
Shapes: st.SearchStrategy[Shape] = st.lists(
    st.tuples(WEIGHT, st.lists(st.tuples(Behaviours, WEIGHT, st.integers(0, 30 * QUANTUM)), min_size=1, max_size=4)),
    min_size=1, max_size=6)  # fmt: skip


def machine_of(vms: Shape) -> Machine:
    """VMs of vCPUs that do anything; behaviours have a memory, so each run makes its own."""
    return Machine([
        (weight, [Member(behaviour(*what, seed), inner, begins) for seed, (what, inner, begins) in enumerate(members)])
        for weight, members in vms
    ])  # fmt: skip


def run(machine: Machine, which: int = Policy.EEVDF, quanta: int = 200) -> Outcome:
    return Simulation(Interpreted(which, machine.shapes, machine.cpus), machine).run(quanta * QUANTUM)


def same_in_both(compiled: Any, which: int, make: Callable[[], Machine], quanta: int) -> None:
    machine = make()
    worlds: list[World] = [Interpreted(which, machine.shapes, machine.cpus), Compiled(compiled, which, machine.shapes, machine.cpus)]
    first, second = (Simulation(world, make()).run(quanta * QUANTUM) for world in worlds)
    assert first.decisions == second.decisions


@pytest.mark.parametrize("which", list(Policy))
@settings(deadline=None, max_examples=15)
@given(vms=Shapes)
def test_both_lives_decide_alike(compiled: Any, which: Policy, vms: Shape) -> None:
    same_in_both(compiled, which, lambda: machine_of(vms), 150)


@pytest.mark.parametrize("which", list(Policy))
def test_both_lives_decide_alike_with_256_vcpus(compiled: Any, which: Policy) -> None:
    """64 VMs of one to seven vCPUs: spinning, sleeping, gaming."""

    def make() -> Machine:
        vms = []
        for number in range(64):
            kinds = [spin(), sleeper(QUANTUM // 2, 9 * QUANTUM, number), gamer(), sleeper(3 * QUANTUM, QUANTUM, number)]
            vms.append((100 + 37 * number, [Member(kinds[(number + i) % 4], 100 + i, i * QUANTUM) for i in range(1 + number % 7)]))
        assert sum(len(members) for _, members in vms) == 253
        vms.append((50, [Member(spin()) for _ in range(3)]))
        return Machine(vms)

    same_in_both(compiled, which, make, 1500)


@settings(deadline=None, max_examples=40)
@given(st.lists(LIKELY, min_size=1, max_size=40))
def test_flat_and_steady_lag_is_at_most_a_quantum(weights: list[int]) -> None:
    assert max(run(sched_sim.spinners(weights), quanta=300).lag_most) <= 1 + SLACK


def test_256_vcpus_lag_at_most_a_quantum(compiled: Any) -> None:
    machine = sched_sim.spinners([1 + number * 7 % 1000 for number in range(256)])
    out = Simulation(Compiled(compiled, Policy.EEVDF, machine.shapes), machine).run(4000 * QUANTUM)
    assert max(out.lag_most) <= 1 + SLACK


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(LIKELY, st.lists(LIKELY, min_size=1, max_size=6)), min_size=1, max_size=8))
def test_two_steady_levels_lag_is_at_most_two_quanta(vms: list[tuple[int, list[int]]]) -> None:
    machine = Machine([(weight, [Member(spin(), inner) for inner in members]) for weight, members in vms])
    assert max(run(machine, quanta=300).lag_most) <= 2 + SLACK


Flat = st.lists(st.tuples(Behaviours, LIKELY, st.integers(0, 30 * QUANTUM)), min_size=1, max_size=12)
Nested = st.lists(st.tuples(LIKELY, st.lists(st.tuples(Behaviours, LIKELY, st.integers(0, 30 * QUANTUM)), min_size=1, max_size=5)),
                  min_size=1, max_size=6)  # fmt: skip


def flat(vms: list[tuple[tuple[str, int, int], int, int]]) -> Machine:
    return Machine([(weight, [Member(behaviour(*what, seed), 100, begins)]) for seed, (what, weight, begins) in enumerate(vms)])


def nested(vms: list[tuple[int, list[tuple[tuple[str, int, int], int, int]]]]) -> Machine:
    return Machine([(weight, [Member(behaviour(*what, seed), inner, begins) for seed, (what, inner, begins) in enumerate(members)])
                    for weight, members in vms])  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(Flat)
def test_joins_and_leaves_stay_within_the_proven_bound(vms: list[tuple[tuple[str, int, int], int, int]]) -> None:
    """One level: the bound of eevdf's docstring, which the simulator keeps for each vCPU while it competes."""
    assert run(flat(vms), quanta=400).over_bound <= SLACK


@settings(deadline=None, max_examples=40)
@given(Nested)
def test_joins_and_leaves_at_both_levels_stay_within_the_proven_bound(vms: list[tuple[int, list[tuple[tuple[str, int, int], int, int]]]]) -> None:
    assert run(nested(vms), quanta=300).over_bound <= SLACK


class Watched(Interpreted):
    """Looks, at each pick, whether each competitor is within its level's bound against the virtual time."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(Policy.EEVDF, machine.shapes, machine.cpus)
        self.most, self.least = len(self.vms), {number: 1 << 62 for number in range(len(self.vms))}
        self.greatest = 0.0

    def pick(self, cpu: int, now: int) -> int | None:
        tree = eevdf.state.tree
        at_least, total = float("-inf"), 0.0
        for number, vm in enumerate(self.vms):
            if not vm.competitors:
                self.least[number] = 1 << 62
                continue
            self.least[number] = min(self.least[number], tree.weight)
            distance = (tree.average - vm.share.virtual_time + (1 << 63)) % (1 << 64) - (1 << 63)
            lag = distance * vm.share.weight / (QUANTUM << virtual_time.UNIT_SHIFT)
            assert -1 - SLACK <= lag <= 1 + self.most / 2 * vm.share.weight / self.least[number] + SLACK
            at_least, total = max(at_least, lag), total + lag
            self.greatest = max(self.greatest, lag)
        assert at_least == float("-inf") or at_least >= -SLACK and total >= -SLACK, "nobody is eligible"
        return super().pick(cpu, now)


@settings(deadline=None, max_examples=40)
@given(Flat)
def test_whatever_joins_and_leaves_lag_against_virtual_time_has_a_bound_of_its_own(vms: list[tuple[tuple[str, int, int], int, int]]) -> None:
    """It does not grow with the number of joins and leaves."""
    machine = flat(vms)
    world = Watched(machine)
    Simulation(world, machine).run(400 * QUANTUM)
    assert world.greatest <= 2, "as measured"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(Behaviours, LIKELY), max_size=10), LIKELY)
def test_nobody_starves(others: list[tuple[tuple[str, int, int], int]], weight: int) -> None:
    """Whatever the others do, a spinner gets its share of the weights of all, less what the bound allows."""
    machine = Machine([(weight, [Member(spin())])] + [
        (heavy, [Member(behaviour(*what, seed))]) for seed, (what, heavy) in enumerate(others)])  # fmt: skip
    out = run(machine, quanta=600)
    share = weight / (weight + sum(heavy for _, heavy in others))
    assert out.service[0] >= 600 * QUANTUM * share - 3 * QUANTUM
    assert out.waited_most[0] <= (3 / share + 3) * QUANTUM


def test_the_attack_on_sampling_pays_under_credit_and_not_under_eevdf() -> None:
    """Run to just short of the tick, then block: the gamer takes what it likes from a neighbour of the same weight."""
    took = {which: run(sched_sim.attack(), which, 2000).service for which in (Policy.CREDIT, Policy.EEVDF)}
    assert took[Policy.CREDIT][0] > 0.95 * sum(took[Policy.CREDIT])
    assert took[Policy.EEVDF][0] <= 0.5 * sum(took[Policy.EEVDF]) + QUANTUM


def test_a_sleeper_is_served_within_its_deadline() -> None:
    """A short job among three spinners of its weight never waits longer than its request takes at its share, and a quantum."""
    light = (100, [Member(sleeper(QUANTUM // 10, 30 * QUANTUM, 5))])
    out = run(Machine([light, *((100, [Member(spin())]) for _ in range(3))]), quanta=3000)
    assert max(out.latencies) <= 5 * QUANTUM
