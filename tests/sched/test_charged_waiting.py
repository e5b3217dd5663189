"""A vCPU pays for its timers while it waits: its place among the others follows, and nobody is lost."""
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor.sched.policy import Policy
from krait.sched_worlds import QUANTUM, Compiled, Interpreted, VmShape, World

VMS = [VmShape(100, [100] * 4), VmShape(300, [300] * 3), VmShape(50, [50])]
COUNT = sum(len(vm.vcpus) for vm in VMS)


def turns(world: World, seed: int) -> list[int | None]:
    """Who is picked in each round, of which each charges some, whether they wait or run."""
    random, now = Random(seed), 0
    for vcpu in range(COUNT):
        world.enqueue(vcpu, now)
    picked: list[int | None] = []
    for _ in range(400):
        running = world.pick(0, now)
        picked.append(running)
        for _ in range(random.randrange(4)):
            vcpu, ticks = random.randrange(COUNT), random.randrange(1, 3 * QUANTUM)
            now += ticks
            world.charge(vcpu, ticks, now)
        if running is not None:
            world.requeue(running, now)
    return picked


@pytest.mark.parametrize("which", list(Policy))
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1 << 32))
def test_who_waits_can_be_charged(compiled: Any, which: Policy, seed: int) -> None:
    picked = turns(Interpreted(which, VMS), seed)
    assert None not in picked, "all of them compete"
    assert picked == turns(Compiled(compiled, which, VMS), seed)


@pytest.mark.parametrize("which", [Policy.EEVDF, Policy.STRIDE, Policy.BVT])
def test_who_was_charged_waiting_comes_later(which: Policy) -> None:
    """Its place goes by what it has used, not by what it had used when it began to wait."""
    world = Interpreted(which, [VmShape(100, [100]) for _ in range(3)])
    for vcpu in range(3):
        world.enqueue(vcpu, 0)
    running = world.pick(0, 0)
    assert running is not None
    charged = (running + 1) % 3
    world.charge(charged, 5 * QUANTUM, 5 * QUANTUM)
    for now in range(5 * QUANTUM, 9 * QUANTUM, QUANTUM):
        assert running is not None and running != charged
        world.charge(running, QUANTUM, now)
        world.requeue(running, now)
        running = world.pick(0, now)
