"""Overlays on the host disk: after a cut at any write, what a guest's FLUSH covered is there, nothing comes back that was gone, and
damaged metadata are not believed."""
from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host_library import HostLibrary
from hypervisor.block.model import SECTOR, Direction, Outcome
from hypervisor.status import Status
from tests.block.rig import FIRST_SECTOR, Asked, Rig
from tests.block.worlds import Compiled, Interpreted

BLOCK = "hypervisor.block"
EXAMPLES = 6 if "KRAIT_HOST_LIBRARY" in os.environ else 25
ROOM = 600
STORE_FIRST = FIRST_SECTOR + ROOM + 16
STORE_SECTORS = 16 + 3 * (2 + 59 * 8)
METADATA = range(STORE_FIRST, STORE_FIRST + 2 + 2 * 3)
BASE = -1
PIECES = st.lists(st.tuples(st.integers(0, 39), st.integers(1, 8)), min_size=1, max_size=10)
STEP: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(st.just("write"), st.integers(0, ROOM - 1), PIECES), st.tuples(st.just("write"), st.integers(0, ROOM - 1), PIECES),
    st.tuples(st.just("read"), st.integers(0, ROOM - 1), PIECES), st.tuples(st.just("flush")), st.tuples(st.just("flush")),
    st.tuples(st.just("drain")), st.tuples(st.just("undo")))  # fmt: skip


class Cut(Exception):
    """The power is gone."""


@dataclass
class Write:
    """One that was submitted: `value` fills its sectors."""

    value: int
    sector: int
    sectors: int
    asked: Asked | None = None

    @property
    def ended(self) -> bool:
        return self.asked is None


@dataclass
class Machine:
    """One life of the hypervisor, and what its guest may expect to find in the next one."""

    world: Any
    image: bytes | None
    kept: bool = True
    lives: list[list[int]] = field(default_factory=lambda: [[BASE] for _ in range(ROOM)])  # values that may be there, by sector
    cut_after: int = 1 << 30
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        self.rig = Rig(self.world, [1], ROOM, checked=False, sectors=STORE_FIRST + STORE_SECTORS + 10)
        if self.image is not None:
            self.rig.device.image = bytearray(self.image)
            self.rig.device.durable = bytes(self.image)
        self.original = bytes(self.rig.device.image)
        assert self.world.call(f"{BLOCK}.overlay_store.create", self.rig.disks[0], STORE_FIRST, STORE_SECTORS, self.kept)
        self.writes: list[Write] = []
        self.before: list[list[int]] | None = None  # what may be there if an undo has not become durable
        self.served = 0

    def value_at(self, data: bytes, sector: int) -> int:
        """What a sector of the virtual disk holds."""
        if data == self.base[sector * SECTOR:(sector + 1) * SECTOR]:
            return BASE
        number = int.from_bytes(data[:4], "little")
        assert data == number.to_bytes(4, "little") * (SECTOR // 4), "mixed contents"
        return number

    @property
    def base(self) -> bytes:
        return self.original[FIRST_SECTOR * SECTOR:(FIRST_SECTOR + ROOM) * SECTOR]

    def serve(self) -> None:
        """The device ends one request, or power is cut before."""
        if self.served == self.cut_after:
            raise Cut
        self.served += 1
        self.rig.device.serve(self.draw.randrange(100))

    def survivors(self) -> bytes:
        """What is on the disk afterwards: of sectors that no FLUSH of the device has seen since, the old or the new contents."""
        device = self.rig.device
        image = bytearray(device.durable)
        latest = bytearray(device.image)
        for request in device.pending:
            if request.kind == 1 and self.draw.random() < 0.5:
                data = b"".join(self.world.read(place, length) for place, length in request.pieces)
                latest[request.sector * SECTOR:request.sector * SECTOR + len(data)] = data
        for start in range(0, len(image), SECTOR):
            if self.draw.random() < 0.5:
                image[start:start + SECTOR] = latest[start:start + SECTOR]
        return bytes(image)

    def run(self) -> None:
        """Until everything has ended."""
        for _ in range(20000):
            self.turn()
            if self.rig.device.pending:
                self.serve()
            elif not self.rig.disks[0].outstanding:
                return
        raise AssertionError("it does not come to an end")

    def turn(self) -> None:
        self.rig.turn()
        for write in self.writes:
            if write.asked is not None and write.asked not in self.rig.asked:
                write.asked = None
        if self.before is not None and any(entry[0] == "end" and entry[-1] == Outcome.OK for entry in self.rig.log[self.undone_at:]):
            self.before = None

    def write(self, number: int, sector: int, pieces: list[tuple[int, int]]) -> None:
        count = sum(size for _, size in pieces)
        frames = {self.rig.frames[0][frame] for frame, _ in pieces}
        if any(asked.sector < sector + count and sector < asked.sector + asked.sectors or frames & {place for place, _ in asked.pieces}
               for asked in self.rig.asked):  # fmt: skip
            self.run()
        for frame, size in pieces:
            self.world.write(self.rig.frames[0][frame], number.to_bytes(4, "little") * (size * SECTOR // 4))
        if self.rig.submit(0, Direction.WRITE, sector, pieces) == Status.OK:
            self.writes.append(Write(number, sector, count, self.rig.asked[-1]))
            for i in range(sector, sector + count):
                self.lives[i].append(number)

    def flush(self) -> None:
        """Submitted while writes may be in flight: it covers those that have ended."""
        ended = [write for write in self.writes if write.ended]
        assert self.rig.submit(0, Direction.FLUSH, 0, []) == Status.OK
        self.run()
        if self.rig.log[-1][-1] != Outcome.OK:
            return
        for write in ended:
            for i in range(write.sector, write.sector + write.sectors):
                if write.value in self.lives[i]:
                    del self.lives[i][:self.lives[i].index(write.value)]
        self.writes = []

    def undo(self) -> None:
        self.run()
        self.writes = []
        self.before, self.undone_at = self.before or self.lives, len(self.rig.log)
        self.lives = [[BASE] for _ in range(ROOM)]
        self.rig.disks[0].overlay.forget = True
        while not self.world.call(f"{BLOCK}.virtual_disk.forget_some", self.rig.vms[0], False):
            pass
        assert self.rig.disks[0].overlay.frames == 0

    def read(self, sector: int, count: int) -> list[int] | None:
        """What is read; None: an I/O error."""
        self.run()
        pieces = [(place // 8, min(8, count - place)) for place in range(0, count, 8)]
        assert self.rig.submit(0, Direction.READ, sector, pieces) == Status.OK
        self.run()
        if self.rig.log[-1][-1] != Outcome.OK:
            return None
        data = b"".join(self.world.read(self.rig.frames[0][frame], size * SECTOR) for frame, size in pieces)
        return [self.value_at(data[i * SECTOR:(i + 1) * SECTOR], sector + i) for i in range(count)]

    def all(self) -> list[int]:
        """Every sector."""
        values: list[int] = []
        for sector in range(0, ROOM, 240):
            part = self.read(sector, min(240, ROOM - sector))
            assert part is not None
            values += part
        return values

    def play(self, steps: list[tuple[Any, ...]]) -> None:
        for number, step in enumerate(steps, 1000 * len(self.lives)):
            match step:
                case ("write", sector, drawn):
                    self.write(number, sector, list(dict(drawn).items()))
                case ("read", sector, drawn):
                    count = min(sum(size for _, size in drawn), ROOM - sector)
                    values = self.read(sector, count)
                    assert values == [self.lives[sector + i][-1] for i in range(count)]
                case ("flush",):
                    self.flush()
                case ("undo",):
                    self.undo()
                case _:
                    self.run()
        self.run()


LIVES = st.lists(st.tuples(st.lists(STEP, max_size=15), st.integers(0, 120)), min_size=1, max_size=3)


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(lives=LIVES, seed=st.integers(0, 1 << 32))
def test_what_was_flushed_outlives_every_cut(library: HostLibrary, lives: list[tuple[list[Any], int]], seed: int) -> None:
    live(lambda: Compiled(library), lives, seed)


@settings(deadline=None, max_examples=3, suppress_health_check=list(HealthCheck))
@given(lives=LIVES, seed=st.integers(0, 1 << 32))
def test_interpreted(lives: list[tuple[list[Any], int]], seed: int) -> None:
    """The same."""
    live(Interpreted, lives[:2], seed)


def live(make: Callable[[], Any], lives: list[tuple[list[Any], int]], seed: int) -> None:
    """Lives that end by a cut after any number of the device's requests, or in order; each begins with what the one before may have left."""
    draw = random.Random(seed)
    image: bytes | None = None
    may: list[list[int]] = [[BASE] for _ in range(ROOM)]
    before: list[list[int]] | None = None
    for steps, cut_after in [*lives, ([], 0)]:
        for _ in range(2):  # looked at twice: what is there once stays there
            world = make()
            machine = Machine(world, image)
            found = machine.all()
            image = bytes(machine.rig.device.durable)
            world.close()
            fits = [all(value in values for value, values in zip(found, maybe)) for maybe in (may, before or may)]
            assert any(fits)
            may, before = [[value] for value in found], None
        world = make()
        machine = Machine(world, image, lives=may, cut_after=cut_after, draw=draw)
        try:
            machine.play(steps)
        except Cut:
            pass
        image, may, before = machine.survivors(), machine.lives, machine.before
        assert machine.rig.device.image[:STORE_FIRST * SECTOR] == machine.original[:STORE_FIRST * SECTOR], "the base was written"
        world.close()


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEP, min_size=3, max_size=15), places=st.lists(st.tuples(st.integers(0, len(METADATA) * SECTOR - 1), st.integers(1, 255)), min_size=1, max_size=6),
       which=st.sampled_from(["anywhere", "first of each sector"]))  # fmt: skip
def test_damage_is_not_believed(library: HostLibrary, steps: list[Any], places: list[tuple[int, int]], which: str) -> None:
    """Bytes of the metadata change: every request fails, or what is read was there at some time since the last undo."""
    machine = Machine(Compiled(library), None)
    ever: list[set[int]] = [{BASE} for _ in range(ROOM)]
    for step in [*steps, ("flush",)]:
        machine.play([step])
        for values, seen in zip(machine.lives, ever):
            seen.update(values)
    image = bytearray(machine.rig.device.durable)
    for place, change in places:
        image[METADATA[0] * SECTOR + (place if which == "anywhere" else place // SECTOR * SECTOR)] ^= change
    again = Machine(Compiled(library), bytes(image))
    read = again.read(0, 240)
    assert read is None or all(value in seen for value, seen in zip(read, ever))
    assert again.rig.pins() == 0


def test_a_map_without_a_valid_copy_fails_until_undo(library: HostLibrary) -> None:
    """Both copies of a map sector that the header vouches for: all requests fail; `undo` makes the overlay anew."""
    machine = Machine(Compiled(library), None)
    for number in (7, 8):  # the second flush writes the header that knows of the first one's map
        machine.write(number, 8 * number, [(0, 8)])
        machine.flush()
    image = bytearray(machine.rig.device.durable)
    for copy in range(2):
        image[(STORE_FIRST + 2 + 3 * copy) * SECTOR + 100] ^= 1
    again = Machine(Compiled(library), bytes(image))
    assert again.read(0, 8) is None and again.read(56, 8) is None
    again.undo()
    assert again.read(56, 8) == [BASE] * 8
    again.write(9, 56, [(0, 8)])
    assert again.read(56, 8) == [9] * 8


def test_a_flush_passes_over_what_is_missing_of_a_large_map() -> None:
    """A cut under a FLUSH of gigabytes, or a forger, can leave a map sector far behind the others and nothing between."""
    world = Interpreted()
    try:
        machine = Machine(world, None)
        machine.flush()
        disk = machine.rig.disks[0]
        store, transfer = disk.overlay.store, world.call(f"{BLOCK}.host_disk.transfer_of", machine.rig.host, 0)
        store.map_sectors = 20_000
        far = (0, 2 * 512 * 8 + 3)  # two tables away
        for index in far:
            assert world.call(f"{BLOCK}.overlay_map.image_of", disk, index, True)
            world.call(f"{BLOCK}.overlay_store._mark", disk, index)
        for index in far:
            world.call(f"{BLOCK}.overlay_store._put_map", disk, transfer)
            assert transfer.sector in [world.call(f"{BLOCK}.overlay_map.map_at", store, index, copy) for copy in (0, 1)]
        assert store.dirty == 0
    finally:
        world.close()


@pytest.mark.parametrize("kept", [True, False])
def test_kept_only_if_asked_for(library: HostLibrary, kept: bool) -> None:
    """Another life sees what was flushed if it wants to keep it, else the base, and so does the life after that."""
    machine = Machine(Compiled(library), None)
    machine.write(7, 100, [(0, 8), (1, 8)])
    machine.flush()
    again = Machine(Compiled(library), bytes(machine.rig.device.durable), kept=kept)
    assert again.read(100, 16) == [7 if kept else BASE] * 16
    third = Machine(Compiled(library), bytes(again.rig.device.durable))
    assert third.read(100, 16) == [7 if kept else BASE] * 16


def test_a_full_store_refuses_writes(library: HostLibrary) -> None:
    """It has 177 slots here, of a base of 75 blocks: never full; a smaller one says so by an I/O error, and goes on."""
    world = Compiled(library)
    rig = Rig(world, [1], ROOM, checked=False, sectors=STORE_FIRST + STORE_SECTORS + 10)
    assert world.call(f"{BLOCK}.overlay_store.create", rig.disks[0], STORE_FIRST, 16 + 2 + 59 * 8, True)
    for block in range(60):
        assert rig.submit(0, Direction.WRITE, 8 * block, [(block % 40, 8)]) == Status.OK
        rig.drain()
        assert rig.log[-1][-1] == (Outcome.OK if block < 59 else Outcome.IO_ERROR)
    assert rig.submit(0, Direction.WRITE, 0, [(0, 8)]) == Status.OK
    rig.drain()
    assert rig.log[-1][-1] == Outcome.OK and rig.pins() == 0
