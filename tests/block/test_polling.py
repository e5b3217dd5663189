"""Ends of a busy disk are looked for in time if it is quick; a slow one interrupts, however many transfers it has in flight."""
from __future__ import annotations

from typing import Any

import pytest

from host_library import HostLibrary
from hypervisor.block.model import Direction
from hypervisor.status import Status
from hypervisor.timers import NEVER
from tests.block.rig import Rig
from tests.block.worlds import Compiled, Interpreted

MICROSECONDS = 1000  # in ticks
AVAIL_FLAGS = 64 * 16  # in the driver's ring, behind the descriptors: 1 asks for no interrupts
POLLING = "hypervisor.block.polling"


def keep_busy(rig: Rig, depth: int) -> None:
    """So many requests of 4 KiB are queued or in flight."""
    while len(rig.asked) < depth:
        number = rig.order
        assert rig.submit(0, Direction.READ, 16 * (number % 30), [(number % 40, 8)]) == Status.OK


def serve(rig: Rig, depth: int, ends: int, gap: int) -> int:
    """The device ends a transfer each `gap` ticks; how many turns there were, each when an interrupt or the disk's timer asked for it."""
    turns = 0
    timer = rig.world.stored("hypervisor.block.model.disks").timer
    for _ in range(ends):
        keep_busy(rig, depth)
        rig.turn()
        until = rig.now + gap
        while timer.heap_index and timer.deadline < until:
            rig.now = max(int(timer.deadline), rig.now)
            rig.world.call("hypervisor.timers.cancel", timer)
            rig.turn()
            turns += 1
        rig.now = until
        rig.device.serve(0)
        if interrupts(rig):
            rig.turn()
            turns += 1
    return turns


def interrupts(rig: Rig) -> bool:
    """Does the driver ask the device for them?"""
    ring = int(rig.world.first("hypervisor.drivers.virtio_blk.units", "hypervisor.drivers.virtio_blk.VirtioBlk").ring)
    asked = not rig.world.read(ring + AVAIL_FLAGS, 1)[0] & 1
    assert asked != bool(rig.host.polled)
    return asked


@pytest.mark.parametrize("compiled", [False, True], ids=["interpreted", "compiled"])
def test_a_quick_disk_is_polled_and_a_slow_one_interrupts(library: HostLibrary, compiled: bool) -> None:
    """And back and forth, as the disk becomes slow and quick again."""
    world: Any = Compiled(library) if compiled else Interpreted()
    try:
        rig = Rig(world, [1], 512, checked=False)
        for _ in range(3):
            serve(rig, 16, 200, 20 * MICROSECONDS)
            assert not interrupts(rig)
            turns = serve(rig, 16, 20, 20_000 * MICROSECONDS)
            assert interrupts(rig) and turns < 5 * 20
        serve(rig, 16, 200, 20 * MICROSECONDS)
        serve(rig, 4, 30, 20 * MICROSECONDS)
        assert interrupts(rig)
        rig.drain()
    finally:
        world.close()


def test_idle_time_does_not_make_a_disk_slow(library: HostLibrary) -> None:
    """Only time in which something was in flight says how quick it is."""
    rig = Rig(Compiled(library), [1], 512, checked=False)
    for _ in range(20):
        keep_busy(rig, 16)
        rig.turn()
        while rig.device.pending:
            rig.now += 20 * MICROSECONDS
            rig.device.serve(0)
            rig.turn()
        assert int(rig.host.gap) < 100 * MICROSECONDS
        rig.wait(1)


def test_what_ends_while_interrupts_are_off_is_looked_for_when_they_come_on(library: HostLibrary) -> None:
    """An end just before the switch has not interrupted: the switch asks for another look at once."""
    rig = Rig(Compiled(library), [1], 512, checked=False)
    keep_busy(rig, 16)
    for _ in range(4):
        rig.turn()
    now = rig.now
    assert rig.host.polled and rig.world.call(f"{POLLING}.choose", rig.host, now) > now
    rig.host.gap = 200 * MICROSECONDS
    assert rig.world.call(f"{POLLING}.choose", rig.host, now) == now and interrupts(rig)
    assert rig.world.call(f"{POLLING}.choose", rig.host, now) == NEVER
