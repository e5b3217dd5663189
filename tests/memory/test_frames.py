"""Finding frames at boot, and what the allocator promises."""
from __future__ import annotations

from typing import Iterator

import pytest

from hypervisor.addresses import PAGE_SIZE, Gfn, Hfn, Hpa
from hypervisor.boot_info import info
from hypervisor.lang import clear, map_memory, set_link_address, unmap_memory
from hypervisor.memory import backing, frames, ledger, ledger_check, nested_walk
from hypervisor.memory.ledger import Kind
from hypervisor.status import Status
from tests.memory.world import FIRST_FRAME, World

MIB = 0x100000
IMAGE_END = 2 * MIB + 0x1800


def boot(ranges: list[tuple[int, int, bool]], bundle: tuple[int, int]) -> Status:
    clear(info)
    clear(ledger.book)
    clear(nested_walk.spaces)
    for index, (base, size, usable) in enumerate(ranges):
        info.ranges[index].base, info.ranges[index].size, info.ranges[index].usable = base, size, usable
    info.range_count = len(ranges)
    info.bundle_hpa, info.bundle_size = Hpa(bundle[0]), bundle[1]
    set_link_address("__image_end", IMAGE_END)
    return frames.init()


@pytest.fixture
def ram() -> Iterator[bytearray]:
    data = bytearray(b"\xff" * (32 * MIB))
    map_memory(MIB, data)
    yield data
    unmap_memory(MIB)


@pytest.mark.parametrize("bundle", [(0, 0), (2 * MIB + 0x2000, 5000), (20 * MIB + 7, 3 * MIB), (2 * MIB + 0x1000, 4 * MIB)])
def test_every_usable_frame_is_entered_once(ram: bytearray, bundle: tuple[int, int]) -> None:
    ranges = [(0, 0x9FC00, True), (0x9FC00, 0x400, False), (MIB, 31 * MIB + 0x123, True), (40 * MIB, MIB, False)]
    assert boot(ranges, bundle) == Status.OK
    assert frames.total() == 0x9F + 31 * 256
    assert ledger_check.check() == 0
    assert (ledger.book.entries >= bundle[0] + bundle[1]) or ledger.book.entries + ledger.book.limit * 16 <= bundle[0]
    handed_out = set()
    while (hpa := frames.alloc()) != 0:
        handed_out.add(hpa)
    for hpa in handed_out:
        assert hpa >= IMAGE_END and hpa + PAGE_SIZE <= 32 * MIB + 0x123
        assert hpa + PAGE_SIZE <= bundle[0] or hpa >= bundle[0] + bundle[1]
        assert hpa + PAGE_SIZE <= ledger.book.entries or hpa >= ledger.book.entries + ledger.book.limit * 16
    assert min(handed_out) < 7 * MIB
    assert frames.free_count() == 0 and ledger_check.check() == 0


def test_ranges_in_any_order_and_a_hole(ram: bytearray) -> None:
    assert boot([(20 * MIB, 4 * MIB, True), (MIB, 8 * MIB, True)], (0, 0)) == Status.OK
    assert frames.total() == 12 * 256
    assert ledger.kind_of(Hfn(10 * MIB >> 12)) == Kind.RESERVED
    assert frames.alloc_contiguous(5 * 256) == Hpa(4 * MIB)  # the upper range has but 4 MiB
    assert ledger_check.check() == 0


def test_no_room_for_the_ledger(ram: bytearray) -> None:
    assert boot([(MIB, 0x101000, True)], (0, 0)) == Status.NO_MEMORY


def test_contiguous_frames_are_found_between_others() -> None:
    world = World(300)
    try:
        taken = [frames.alloc() for _ in range(300)]
        assert frames.alloc() == 0 and frames.alloc_contiguous(1) == 0
        for hpa in taken:
            if hpa >> 12 not in (FIRST_FRAME + 50, FIRST_FRAME + 54, FIRST_FRAME + 200) and hpa >> 12 >= FIRST_FRAME + 50 \
                    and hpa >> 12 < FIRST_FRAME + 58 or hpa >> 12 == FIRST_FRAME + 250:
                frames.free(hpa)
        assert frames.alloc_contiguous(4) == 0
        assert frames.alloc_contiguous(3) == Hpa((FIRST_FRAME + 55) << 12)
        assert frames.alloc_contiguous(3) == Hpa((FIRST_FRAME + 51) << 12)
        assert frames.alloc() == Hpa((FIRST_FRAME + 250) << 12)
        assert frames.alloc() == 0
        world.check()
    finally:
        world.close()


def test_the_pool_for_guests_is_bounded_and_leaves_a_reserve() -> None:
    world = World(600, limit_frames=50)
    try:
        vm = world.vm(4096)
        for gfn in range(50):
            assert frames.available() == 50 - gfn
            assert backing.back(vm, Gfn(gfn)) == Status.OK
        assert backing.back(vm, Gfn(60)) == Status.NO_MEMORY
        frames.set_limit(0)
        taken = 50
        while backing.back(vm, Gfn(taken)) == Status.OK:
            taken += 1
        assert frames.free_count() == frames.HYPERVISOR_RESERVE
        world.check()
    finally:
        world.close()
