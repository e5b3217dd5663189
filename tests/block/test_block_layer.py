"""The block layer against a device that reorders, fails and stalls: nothing lost, nothing doubled, nobody's blocks but one's own."""
from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from host_library import HostLibrary
from hypervisor.block.model import SECTOR, Direction, Outcome
from hypervisor.status import Status
from tests.block.rig import FIRST_SECTOR, SECONDS, Rig
from tests.block.worlds import Compiled, Interpreted
from tests.three_lives.test_scenario import run_sanitized

EXAMPLES = 10 if "KRAIT_HOST_LIBRARY" in os.environ else 20
ROOM = 512
PIECES = st.lists(st.tuples(st.integers(0, 39), st.integers(1, 8)), min_size=1, max_size=12)
STEP = st.one_of(
    st.tuples(st.just("submit"), st.integers(0, 2), st.sampled_from([0, 0, 1, 1, 1, 2, 3]), st.integers(0, ROOM - 1), PIECES),
    st.tuples(st.just("turn")), st.tuples(st.just("turn")),
    st.tuples(st.just("serve"), st.integers(0, 100)), st.tuples(st.just("serve"), st.integers(0, 100)),
    st.tuples(st.just("bad"), st.integers(FIRST_SECTOR, FIRST_SECTOR + 3 * ROOM - 1)),
    st.tuples(st.just("stall"), st.sampled_from([1, 9])),
    st.tuples(st.just("cancel"), st.integers(0, 2)))  # fmt: skip


def overlaps(rig: Rig, disk: int, direction: int, sector: int, sectors: int, pieces: list[tuple[int, int]]) -> bool:
    """Is a request in flight on the same sectors or memory? Their order would be anybody's."""
    frames = {rig.frames[disk][frame] for frame, _ in pieces}
    return any(asked.disk == disk and (asked.sector < sector + sectors and sector < asked.sector + asked.sectors
                                       or frames & {place for place, _ in asked.pieces}) for asked in rig.asked)


def play(world: Any, steps: list[tuple[Any, ...]], most_sectors: int, most_segments: int, depth: int,
         kind: str) -> tuple[Any, ...]:  # fmt: skip
    """Run a script; what happened, and what is left of it."""
    rig = Rig(world, [1, 2, 4], ROOM, most_sectors, most_segments, depth, kind)
    for name, *arguments in steps:
        match name:
            case "submit":
                disk, direction, sector, pieces = arguments
                unique = list(dict(pieces).items()) if direction in (Direction.READ, Direction.WRITE) else []
                sectors = sum(count for _, count in unique) if unique else (0 if direction == Direction.FLUSH else 1 + sector % 90)
                if not overlaps(rig, disk, direction, sector, sectors, unique):
                    if direction == Direction.WRITE:
                        for frame, count in unique:
                            world.write(rig.frames[disk][frame], bytes([len(rig.log) & 0xFF]) * (count * SECTOR))
                    status = rig.submit(disk, direction, sector, unique, sectors)
                    inside = direction == Direction.FLUSH or sector + sectors <= ROOM
                    assert status == (Status.OK if inside else Status.BAD_ARGUMENT) or status == -1
            case "turn":
                rig.turn()
            case "serve" if rig.device.pending:
                rig.device.serve(*arguments)
            case "bad":
                rig.device.bad.add(*arguments)
            case "stall":
                rig.wait(*arguments)
            case "cancel":
                world.call("hypervisor.block.virtual_disk.cancel", rig.vms[arguments[0]])
                rig.asked = [asked for asked in rig.asked if asked.disk != arguments[0]]
    rig.drain()
    assert not rig.asked and rig.host.in_flight == 0 and rig.host.busy == 0 and rig.pins() == 0
    for served, sector, sectors in rig.device.served:
        if served in (0, 1):
            assert sectors <= most_sectors and FIRST_SECTOR <= sector and sector + sectors <= FIRST_SECTOR + 3 * ROOM
            assert (sector - FIRST_SECTOR) // ROOM == (sector + sectors - 1 - FIRST_SECTOR) // ROOM
    edges = (slice(0, FIRST_SECTOR * SECTOR), slice((FIRST_SECTOR + 3 * ROOM) * SECTOR, None))
    assert all(rig.device.image[edge] == rig.before[edge] for edge in edges)
    counted = [tuple(disk.counts.requests) + (disk.counts.errors, disk.counts.split, disk.counts.merged) for disk in rig.disks]
    return rig.log, rig.device.served, bytes(rig.device.image), counted


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEP, max_size=80), most_sectors=st.sampled_from([3, 16, 256]), most_segments=st.sampled_from([1, 4, 33]),
       depth=st.sampled_from([1, 4, 64]))  # fmt: skip
@example(steps=[("bad", FIRST_SECTOR), ("submit", 0, 0, 0, [(0, 1)]), ("turn",), ("serve", 0), ("stall", 9)], most_sectors=3, most_segments=1, depth=1)
@pytest.mark.parametrize("kind", ["virtio", "nvme", "ata"])
def test_same_history(library: HostLibrary, kind: str, steps: list[tuple[Any, ...]], most_sectors: int, most_segments: int, depth: int) -> None:
    """Interpreted and compiled decide alike; each request ends once, by error only where the device failed or stalled."""
    results = []
    for world in (Interpreted(), Compiled(library)):
        try:
            results.append(play(world, steps, most_sectors, most_segments, depth, kind))
        finally:
            world.close()
    assert results[0] == results[1]
    if not any(step[0] in ("bad", "stall") for step in steps):
        assert all(entry[-1] == Outcome.OK for entry in results[0][0] if entry[0] == "end")


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is missing")
@pytest.mark.skipif("KRAIT_HOST_LIBRARY" in os.environ, reason="this is that run")
@pytest.mark.parametrize(("files", "chosen"), [(["block_layer"], "same_history"), (["overlay", "overlay_store", "polling"], "not interpreted")])
def test_sanitizers_find_nothing(sanitized: Path, files: list[str], chosen: str) -> None:
    """The same scripts, and overlays through their lives, on a library with address, undefined, overflow and conversion sanitizers."""
    paths = [f"tests/block/test_{name}.py" for name in files]
    done = run_sanitized(sanitized, ["-m", "pytest", "-q", "-p", "no:cacheprovider", *paths, "-k", chosen])
    assert done.returncode == 0, done.stdout + done.stderr


def saturate(world: Any, weights: list[int], sizes: list[int], requests: int, seed: int) -> list[tuple[int, int]]:
    """VMs that always have 32 requests queued; requests and sectors served of each while `requests` were."""
    rig = Rig(world, weights, 4096, checked=False)
    draw = random.Random(seed)
    place = [0] * len(weights)
    served = 0
    while served < requests:
        for disk in range(len(weights)):
            while sum(asked.disk == disk for asked in rig.asked) < 32:
                count = draw.choice(sizes)
                pieces = [(draw.randrange(40), min(8, count - at)) for at in range(0, count, 8)]
                place[disk] = (place[disk] + 2 * count) % (4096 - count)  # apart from each other: nothing is merged
                assert rig.submit(disk, Direction.READ, place[disk], pieces) == Status.OK
        rig.turn()
        while rig.device.pending:
            rig.device.serve(draw.randrange(1000))
            served += 1
    return [(int(disk.counts.requests[0]), int(disk.counts.sectors[0])) for disk in rig.disks]


@pytest.mark.parametrize("sizes", [[8], [1, 8, 32, 64]], ids=["4 KiB", "mixed"])
def test_shares_by_weight(library: HostLibrary, sizes: list[int]) -> None:
    """Three VMs at weights 1:2:4 that saturate one disk get shares within 5 % by requests and by bytes."""
    done = saturate(Compiled(library), [1, 2, 4], sizes, 3000, 1)
    for kind in (0, 1):
        total = sum(counts[kind] for counts in done)
        for counts, weight in zip(done, (1, 2, 4)):
            assert counts[kind] / total == pytest.approx(weight / 7, rel=0.05), done


@pytest.mark.parametrize(("limit", "rate"), [("requests_limit", 2000), ("bytes_limit", 2000 * 4096)])
def test_limits(library: HostLibrary, limit: str, rate: int) -> None:
    """A disk with a limit gets what the limit says, within its burst; its neighbour of the same weight is not held back by it."""
    rig = Rig(Compiled(library), [1, 1], 4096, checked=False)
    getattr(rig.disks[0], limit).rate = rate
    began = rig.now
    while rig.now < began + SECONDS // 2:
        for disk in (0, 1):
            while sum(asked.disk == disk for asked in rig.asked) < 8:
                assert rig.submit(disk, Direction.READ, 16 * len(rig.asked), [(len(rig.asked), 8)]) == Status.OK
        rig.now += 100_000  # the device takes 100 us
        rig.turn()
        while rig.device.pending:
            rig.device.serve(0)
    served = [int(disk.counts.requests[0]) for disk in rig.disks]
    assert 1000 <= served[0] <= 1000 * 1.12 + 8 and served[1] > 2 * served[0]


def test_a_request_that_fails_in_company_is_tried_alone(library: HostLibrary) -> None:
    """Neighbouring requests travel together; when one sector is bad, only the request that wants it fails."""
    rig = Rig(Compiled(library), [1], 512)
    rig.device.bad.add(FIRST_SECTOR + 20)
    for index in range(4):
        assert rig.submit(0, Direction.READ, 8 * index, [(index, 8)]) == Status.OK
    rig.drain()
    assert int(rig.disks[0].counts.merged) == 3
    assert sorted(entry[3:] for entry in rig.log if entry[0] == "end") == [(0, 8, 0), (8, 8, 0), (16, 8, 1), (24, 8, 0)]


@pytest.mark.parametrize("kind", ["virtio", "nvme", "ata"])
def test_frames_stay_pinned_while_their_vm_dies(library: HostLibrary, kind: str) -> None:
    """A VM is stopped with a request in flight and another queued: the frames of the first are pinned, and it is not quiet, until the
    device has ended it; those of the second are let go at once."""
    rig = Rig(Compiled(library), [1], 512, depth=1, kind=kind)
    for sector, frames in ((0, (0, 1)), (64, (2, 3, 4))):
        assert rig.submit(0, Direction.READ, sector, [(frame, 8) for frame in frames]) == Status.OK
    rig.turn()
    assert rig.pins() == 5 and rig.host.in_flight == 1
    rig.world.call("hypervisor.block.virtual_disk.cancel", rig.vms[0])
    rig.asked = []
    for _ in range(5):
        rig.turn()
        assert rig.pins() == 2 and not rig.world.call("hypervisor.block.virtual_disk.quiet", rig.vms[0])
    rig.device.serve(0)
    rig.turn()
    assert rig.pins() == 0 and rig.world.call("hypervisor.block.virtual_disk.quiet", rig.vms[0])


@pytest.mark.parametrize("kind", ["virtio", "nvme", "ata"])
def test_a_stalled_disk_is_reset(library: HostLibrary, kind: str) -> None:
    """A transfer that does not end is started again after a reset, and fails when it stalls a second time; then the disk works on."""
    rig = Rig(Compiled(library), [1], 512, kind=kind)
    for stalls, outcome in ((1, Outcome.OK), (2, Outcome.IO_ERROR)):
        assert rig.submit(0, Direction.WRITE, 0, [(0, 8)]) == Status.OK
        rig.turn()
        for _ in range(stalls):
            rig.wait(9)
            for _ in range(8):
                rig.turn()
        rig.drain()
        assert rig.log[-1][-1] == outcome
    assert int(rig.host.resets) == 3 and rig.pins() == 0
    assert rig.submit(0, Direction.READ, 0, [(1, 8)]) == Status.OK
    rig.drain()
    assert rig.log[-1][-1] == Outcome.OK


def test_a_disk_that_never_comes_back_fails_at_once(library: HostLibrary) -> None:
    """NVMe stays busy after a reset: after five seconds every request fails, none waits, nothing stays pinned."""
    rig = Rig(Compiled(library), [1], 512, kind="nvme")
    for index in range(5):
        assert rig.submit(0, Direction.READ, 16 * index, [(index, 8)]) == Status.OK
    rig.turn()
    rig.device.look = lambda: None  # it does nothing any more
    for _ in range(40):
        rig.wait(1)
        rig.turn()
    assert [entry[-1] for entry in rig.log if entry[0] == "end"] == [Outcome.IO_ERROR] * 5 and rig.pins() == 0
    assert rig.submit(0, Direction.READ, 0, [(0, 8)]) == Status.OK
    rig.turn()
    assert rig.log[-1][-1] == Outcome.IO_ERROR
