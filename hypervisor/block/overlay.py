"""Copy-on-write overlays: what a VM writes stays apart, sector by sector; its range of the host disk is only read.

A table of three levels by 4 KiB block; an entry of the last is a frame and, in its lowest byte, which of its eight sectors have
been written. So a write never has to read first. Frames and tables are charged to the VM. They are lost with the VM, or before by
the operator's `undo`: nothing in memory outlives the machine, and FLUSH promises nothing. Where blocks are kept on the host disk
(overlay_store.py), an entry has a place there instead of a frame.
"""
from __future__ import annotations

from typing import Final

from hypervisor.addresses import PAGE_SHIFT, PAGE_SIZE, Hpa, Hva, hva_of
from hypervisor.arch_x86.intrinsics import load_u64, store_u64
from hypervisor.block import cutter
from hypervisor.block.model import SECTOR_SHIFT, Direction, Request, VirtualDisk
from hypervisor.lang import u64
from hypervisor.memory import frames, guest_window
from hypervisor.memory.ledger import Use
from hypervisor.status import Status

BLOCK_SECTORS: Final = 8
LEVELS: Final = 3
LEVEL_BITS: Final = 9
ENTRIES: Final = 512
MOST_SECTORS: Final[u64] = BLOCK_SECTORS << LEVELS * LEVEL_BITS  # 512 GiB
MAP_KEYS: Final[u64] = 1 << LEVELS * LEVEL_BITS - 1  # entries from here on are a store's: frames with its map
FRAME: Final[u64] = 0xFFFF_FFFF_FFFF_F000
PART_SECTORS: Final = 32  # that one step copies at most
FORGET_A_STEP: Final = 128


def create(disk: VirtualDisk, size: u64) -> bool:
    """Give a new disk an overlay of at most `size` bytes; False: the disk is too large for one, or there is no memory."""
    if disk.sectors > MOST_SECTORS:
        return False
    disk.overlay.most_frames = max(size >> PAGE_SHIFT, 1)
    disk.overlay.root = take_frame(disk)
    disk.overlay.table_frames = 1
    disk.can_discard = False
    return disk.overlay.root != 0


def take_frame(disk: VirtualDisk) -> Hpa:
    """A frame of zeros charged to the disk's VM; 0: the hypervisor's reserve is not for this."""
    vm = disk.vm
    assert vm is not None
    if frames.free_count() <= frames.HYPERVISOR_RESERVE:
        return Hpa(0)
    hpa = frames.alloc_for(vm.id, Use.OTHER)
    if hpa != 0:
        vm.overhead_frames += 1
        frames.zero(hpa)
    return hpa


def give_frame(disk: VirtualDisk, hpa: Hpa) -> None:
    """Back."""
    vm = disk.vm
    assert vm is not None
    frames.free(hpa)
    vm.overhead_frames -= 1


def slot(disk: VirtualDisk, block: u64, make: bool) -> Hva:
    """Where the entry of a block lies; 0: no table, and it was not to be made or there is no memory."""
    table = disk.overlay.root
    for level in range(LEVELS - 1, 0, -1):
        place = Hva(hva_of(table) + 8 * (block >> (LEVEL_BITS * u64(level) & 63) & (ENTRIES - 1)))
        below = Hpa(load_u64(place))
        if below == 0:
            if not make:
                return Hva(0)
            below = take_frame(disk)
            if below == 0:
                return Hva(0)
            disk.overlay.table_frames += 1
            store_u64(place, below)
        table = below
    return Hva(hva_of(table) + 8 * (block & (ENTRIES - 1)))


def entry_of(disk: VirtualDisk, sector: u64) -> u64:
    """The entry of a sector's block, 0: nothing was written there."""
    place = slot(disk, sector // BLOCK_SECTORS, False)
    return 0 if place == 0 else load_u64(place)


def has(entry: u64, sector: u64) -> bool:
    """Does the entry of a sector's block say that the sector was written?"""
    return entry >> (sector % BLOCK_SECTORS & 7) & 1 != 0


def unwritten(disk: VirtualDisk, sector: u64, most: u64) -> u64:
    """How many sectors from `sector` on, at most `most`, have to be read from the host disk."""
    count: u64 = 0
    while count < most:
        entry = entry_of(disk, sector + count)
        if entry == 0:
            count = min(most, count + BLOCK_SECTORS - (sector + count) % BLOCK_SECTORS)
        elif has(entry, sector + count):
            break
        else:
            count += 1
    return count


def serve(disk: VirtualDisk, request: Request) -> Status:
    """Copy the next sectors of a READ that were written, or of a WRITE, PART_SECTORS at most.

    NOT_FOUND: the next sector of a READ lies on the host disk. NO_MEMORY: a WRITE finds the overlay full.
    """
    done: u64 = 0
    while done < PART_SECTORS and request.started < request.sectors:
        sector: u64 = request.sector + request.started
        if request.direction == Direction.READ:
            entry = entry_of(disk, sector)
            if not has(entry, sector):
                return Status.NOT_FOUND if done == 0 else Status.OK
        else:
            place = slot(disk, sector // BLOCK_SECTORS, True)
            if place == 0 or not _hold(disk, place):
                return Status.NO_MEMORY
            entry = load_u64(place) | 1 << (sector % BLOCK_SECTORS & 7)
            store_u64(place, entry)
        _copy_sector(request, hva_of(Hpa((entry & FRAME) + (sector % BLOCK_SECTORS << SECTOR_SHIFT))))
        done += 1
    return Status.OK


def _hold(disk: VirtualDisk, place: Hva) -> bool:
    """See that a block has its frame."""
    if load_u64(place) != 0:
        return True
    if disk.overlay.frames == disk.overlay.most_frames:
        return False
    frame = take_frame(disk)
    if frame == 0:
        return False
    disk.overlay.frames += 1
    store_u64(place, frame)
    return True


def _copy_sector(request: Request, place: Hva) -> None:
    """The next sector of a request, from or to the overlay."""
    segment = request.segments[request.segment_at]
    memory = Hva(hva_of(segment.hpa) + request.segment_used)
    if request.direction == Direction.READ:
        guest_window.copy(memory, place, 1 << SECTOR_SHIFT)
    else:
        guest_window.copy(place, memory, 1 << SECTOR_SHIFT)
    cutter.advance(request, segment, 1 << SECTOR_SHIFT)


def forget_some(disk: VirtualDisk) -> bool:
    """Drop a part of what was written, below 30 k instructions; True: nothing is left but the empty root."""
    if disk.overlay.root == 0:
        return True
    budget: u64 = FORGET_A_STEP
    root = disk.overlay.root
    middle_at = _first(root)
    while middle_at != 0 and budget != 0:
        middle = Hpa(load_u64(middle_at))
        last_at = _first(middle)
        if last_at == 0:
            _drop_table(disk, middle_at)
            middle_at = _first(root)
            budget -= 1
            continue
        last = Hpa(load_u64(last_at))
        entry_at = _first(last)
        stored = disk.overlay.store.map_sectors != 0 and middle_at - hva_of(root) < PAGE_SIZE // 2  # below MAP_KEYS
        while entry_at != 0 and budget != 0:
            if not stored:
                give_frame(disk, Hpa(load_u64(entry_at) & FRAME))
            store_u64(entry_at, 0)
            entry_at = _next(last, entry_at)
            budget -= 1
        if entry_at == 0:
            _drop_table(disk, last_at)
    if middle_at == 0:
        disk.overlay.frames = 0
    return middle_at == 0


def _drop_table(disk: VirtualDisk, place: Hva) -> None:
    give_frame(disk, Hpa(load_u64(place)))
    disk.overlay.table_frames -= 1
    store_u64(place, 0)


def _first(table: Hpa) -> Hva:
    """The first entry that is not 0; 0: none."""
    return _next(table, Hva(hva_of(table) - 8))


def _next(table: Hpa, after: Hva) -> Hva:
    place = Hva(after + 8)
    end: u64 = hva_of(table) + PAGE_SIZE
    while place < end:
        if load_u64(place) != 0:
            return place
        place = Hva(place + 8)
    return Hva(0)


def drop(disk: VirtualDisk) -> None:
    """The root of an overlay that is empty, of a disk that goes."""
    if disk.overlay.root != 0:
        give_frame(disk, disk.overlay.root)
        disk.overlay.root = Hpa(0)
    for hpa in disk.overlay.store.buffers:
        if hpa != 0:
            give_frame(disk, hpa)
