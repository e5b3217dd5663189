"""Backing what is around a touched page: one aligned cluster, zeroed, and nothing of it when memory is short."""
from collections.abc import Iterator

import pytest

from hypervisor.abi import PageState
from hypervisor.addresses import PAGE_SIZE, Gfn
from hypervisor.memory import backing, frames
from hypervisor.memory.backing import CLUSTER
from hypervisor.paging import page_state, pressure, release
from hypervisor.status import Status
from tests.memory.world import World

PAGES = 1000  # ends inside a cluster


@pytest.fixture
def world() -> Iterator[World]:
    made = World(1600)
    yield made
    made.check()
    made.close()


def backed(world: World, pages: int) -> list[int]:
    return [gfn for gfn in range(pages) if world.bytes_of(world.vms[0], gfn) is not None]


@pytest.mark.parametrize("gfn", [0, CLUSTER - 1, 517, PAGES - 1])
def test_an_aligned_cluster_inside_memory(world: World, gfn: int) -> None:
    vm = world.vm(PAGES)
    assert backing.back(vm, Gfn(gfn)) == Status.OK
    backing.back_around(vm, Gfn(gfn))
    first = gfn - gfn % CLUSTER
    assert backed(world, PAGES) == list(range(first, min(first + CLUSTER, PAGES)))
    assert all(world.bytes_of(vm, near) == bytes(PAGE_SIZE) for near in backed(world, PAGES))
    assert vm.private_frames == len(backed(world, PAGES))


def test_what_the_guest_gave_back_stays_away(world: World) -> None:
    vm = world.vm(PAGES)
    for gfn in (0, 1):
        assert backing.back(vm, Gfn(gfn)) == Status.OK
    assert release.mem_release(vm, 1, 1) == 1
    page_state.set_state(vm, 5, 1, PageState.UNUSED)
    backing.back_around(vm, Gfn(0))
    assert backed(world, PAGES) == [gfn for gfn in range(CLUSTER) if gfn not in (1, 5)]


def test_nothing_under_pressure(world: World) -> None:
    vm = world.vm(PAGES)
    frames.set_limit(CLUSTER * PAGE_SIZE)
    assert frames.available() <= pressure.high_watermark() + CLUSTER
    assert backing.back(vm, Gfn(3)) == Status.OK
    backing.back_around(vm, Gfn(3))
    assert backed(world, PAGES) == [3]
