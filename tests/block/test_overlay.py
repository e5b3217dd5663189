"""Copy-on-write overlays: a VM reads what it wrote and the base elsewhere; the base stays as it is; undo brings it back."""
from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host_library import HostLibrary
from hypervisor.block.model import SECTOR, Direction, Outcome
from hypervisor.status import Status
from tests.block.rig import FIRST_SECTOR, Rig
from tests.block.worlds import Compiled, Interpreted

EXAMPLES = 8 if "KRAIT_HOST_LIBRARY" in os.environ else 20
ROOM = 160
PIECES = st.lists(st.tuples(st.integers(0, 39), st.integers(1, 8)), min_size=1, max_size=10)
STEP: st.SearchStrategy[tuple[Any, ...]] = st.one_of(st.tuples(st.sampled_from([Direction.READ, Direction.WRITE]), st.integers(0, ROOM - 1), PIECES),
                 st.tuples(st.just(Direction.FLUSH), st.just(0), st.just([])))
BASE = slice(FIRST_SECTOR * SECTOR, (FIRST_SECTOR + ROOM) * SECTOR)


def ask(world: Any, rig: Rig, step: tuple[Any, ...], seen: list[int | None]) -> None:
    """One request to its end, compared with what each sector should begin with (None: not known)."""
    direction, sector, drawn = step
    pieces = list(dict(drawn).items())
    count = sum(size for _, size in pieces)
    value = len(rig.log) & 0xFF
    for frame, size in pieces:
        if direction == Direction.WRITE:
            world.write(rig.frames[0][frame], bytes([value]) * (size * SECTOR))
    if rig.submit(0, direction, sector, pieces) != Status.OK:
        assert sector + count > ROOM
        return
    rig.drain()
    outcome = rig.log[-1][-1]
    assert outcome == Outcome.OK or direction == Direction.WRITE
    data = b"".join(world.read(rig.frames[0][frame], size * SECTOR) for frame, size in pieces)
    for i in range(count):
        if direction == Direction.WRITE:
            seen[sector + i] = value if outcome == Outcome.OK else None
            continue
        wanted = seen[sector + i]
        base = rig.before[BASE][(sector + i) * SECTOR:][:SECTOR]
        assert wanted is None or data[i * SECTOR:(i + 1) * SECTOR] == (base if wanted == -1 else bytes([wanted]) * SECTOR)


@pytest.mark.parametrize("compiled", [False, True], ids=["interpreted", "compiled"])
@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEP, max_size=25), blocks=st.sampled_from([3, 100]))
def test_reads_see_what_was_written(library: HostLibrary, compiled: bool, steps: list[tuple[Any, ...]], blocks: int) -> None:
    world: Any = Compiled(library) if compiled else Interpreted()
    try:
        rig = Rig(world, [1], ROOM, checked=False)
        assert world.call("hypervisor.block.overlay.create", rig.disks[0], blocks * 4096)
        seen: list[int | None] = [-1] * ROOM  # -1: as the base
        for step in steps:
            ask(world, rig, step, seen)
            assert rig.disks[0].overlay.frames <= blocks
        assert rig.device.image == rig.before and all(kind == 0 for kind, _, _ in rig.device.served)
        rig.disks[0].overlay.forget = True
        while not world.call("hypervisor.block.virtual_disk.forget_some", rig.vms[0], False):
            pass
        assert rig.disks[0].overlay.frames == 0 and rig.disks[0].overlay.table_frames == 1 and rig.pins() == 0
        ask(world, rig, (Direction.READ, 0, [(frame, 8) for frame in range(ROOM // 8)]), [-1] * ROOM)
        overhead = rig.vms[0].overhead_frames
        world.call("hypervisor.block.virtual_disk.destroy", rig.vms[0])
        assert overhead > rig.vms[0].overhead_frames == 1  # the map of page states
    finally:
        world.close()
