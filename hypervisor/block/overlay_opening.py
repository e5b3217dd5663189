"""Opening an overlay on the host disk: what an earlier run left is found and believed or not, or it is made empty."""
from __future__ import annotations

from typing import Final

from hypervisor import entropy
from hypervisor.addresses import PAGE_SHIFT, Hva, hva_of
from hypervisor.arch_x86.intrinsics import copy_memory, load_u64, store_u64
from hypervisor.block import overlay
from hypervisor.block.model import SECTOR, Direction, Store, StoreState, Transfer, VirtualDisk
from hypervisor.block.overlay import BLOCK_SECTORS
from hypervisor.block.overlay_map import (HEADER_MAGIC, HEADERS, MAPS_A_FRAME, MASK, SLOTS, VERSION, Header, MapSector, counts, fail, image_of,
                                          is_header, map_at, move, put_header)
from hypervisor.lang import address, at, offsetof, u64
from hypervisor.status import Status

PARTS: Final = 4  # in which the entries of a map sector are taken in: each may need two tables
PART_SLOTS: Final = (SLOTS + PARTS - 1) // PARTS
READ_STEPS: Final = 2 + MAPS_A_FRAME * PARTS  # for each frame of the map: both copies are read, then taken in part by part


def fill(disk: VirtualDisk, transfer: Transfer) -> bool:
    """Let an empty transfer do the next step. False: what could be done without one has been, below 45 k instructions."""
    store = disk.overlay.store
    match store.state:
        case StoreState.OPENING:
            move(transfer, Direction.READ, store.first, HEADERS, store.buffers[0])
        case StoreState.READING:
            return read_map(disk, transfer)
        case _:
            if store.at & 1 == 0:
                put_header(disk, transfer)
            else:
                transfer.direction = Direction.FLUSH
    return True


def ended(disk: VirtualDisk) -> None:
    """That transfer has ended well."""
    store = disk.overlay.store
    if store.state == StoreState.OPENING:
        choose_header(disk)
    elif store.state == StoreState.READING:
        store.at += 1
    else:
        host = disk.host
        assert host is not None
        store.at += 1 if host.can_flush else 2
        if store.at >= 2 * HEADERS:
            store.state = StoreState.OPEN


def start_over(disk: VirtualDisk) -> None:
    """Let it be empty: the header, which the next request waits for, says so. Its tables are empty already."""
    store = disk.overlay.store
    store.state = StoreState.RENEWING
    store.at = 0
    store.next_slot = 0
    store.dirty = 0
    store.known = 0
    store.reached = 0
    store.header_due = False
    entropy.fill(Hva(address(store) + offsetof(Store, "epoch")), 8)


def choose_header(disk: VirtualDisk) -> None:
    """Both copies have been read."""
    store = disk.overlay.store
    first = at(Header, hva_of(store.buffers[0]))
    second = at(Header, Hva(hva_of(store.buffers[0]) + SECTOR))
    if first.magic != HEADER_MAGIC and second.magic != HEADER_MAGIC:
        start_over(disk)  # there has never been one
        return
    good = first
    if not is_header(first) or is_header(second) and second.sequence > first.sequence:
        good = second
    fits = good.base_first == disk.first and good.base_sectors == disk.sectors and good.first == store.first and good.sectors == store.sectors
    if not is_header(good):
        fail(disk, "its header is damaged")
    elif good.version != VERSION or not fits or good.known > store.map_sectors:
        fail(disk, "it is of another version, or belongs to another disk or range")
    else:
        store.sequence = good.sequence
        store.epoch = good.epoch
        store.known = good.known
        store.reached = good.known
        store.at = 0
        store.state = StoreState.READING


def read_map(disk: VirtualDisk, transfer: Transfer) -> bool:
    """The next step of READING."""
    store = disk.overlay.store
    while store.at % READ_STEPS >= 2:
        step: u64 = store.at % READ_STEPS - 2
        index: u64 = store.at // READ_STEPS * MAPS_A_FRAME + step // PARTS
        store.at += 1
        status = Status.NOT_FOUND
        if index < store.map_sectors:
            status = _take_in(disk, index) if step % PARTS == 0 else Status.OK
        if status == Status.OK:
            status = _take_entries(disk, index, step % PARTS * PART_SLOTS)
        if status == Status.BAD_ARGUMENT:
            fail(disk, "its map is damaged")
        elif status == Status.NO_MEMORY:
            fail(disk, "there is no memory for its map")
        if status != Status.NOT_FOUND:
            return False
    first: u64 = store.at // READ_STEPS * MAPS_A_FRAME
    if first >= store.map_sectors:
        store.state = StoreState.OPEN
        return False
    copy: u64 = store.at % READ_STEPS
    move(transfer, Direction.READ, map_at(store, first, copy), min(MAPS_A_FRAME, store.map_sectors - first), store.buffers[copy])
    return True


def _take_in(disk: VirtualDisk, index: u64) -> Status:
    """A map sector, of which both copies were read, into its image. NOT_FOUND: none counts; BAD_ARGUMENT: damage; NO_MEMORY."""
    store = disk.overlay.store
    first = at(MapSector, Hva(hva_of(store.buffers[0]) + index % MAPS_A_FRAME * SECTOR))
    second = at(MapSector, Hva(hva_of(store.buffers[1]) + index % MAPS_A_FRAME * SECTOR))
    good = first
    if not counts(store, first, index) or counts(store, second, index) and second.sequence > first.sequence:
        good = second
    if not counts(store, good, index):
        return Status.NOT_FOUND if index >= store.known else Status.BAD_ARGUMENT
    image = image_of(disk, index, True)
    if image == 0:
        return Status.NO_MEMORY
    copy_memory(image, address(good), SECTOR)
    store.reached = max(store.reached, index + 1)
    return Status.OK


def _take_entries(disk: VirtualDisk, index: u64, first: u64) -> Status:
    """Put a part of what a map sector's image tells into the table. NOT_FOUND: it has no image; BAD_ARGUMENT; NO_MEMORY."""
    store = disk.overlay.store
    place = image_of(disk, index, False)
    if place == 0:
        return Status.NOT_FOUND
    image = at(MapSector, place)
    if image.magic == 0:
        return Status.NOT_FOUND  # its neighbours have one
    for i in range(first, min(first + PART_SLOTS, SLOTS)):
        entry: u64 = image.entries[i]
        if entry & MASK == 0:
            continue  # its slot was given away, and nothing written there
        block: u64 = entry >> 8
        if block >= (disk.sectors + BLOCK_SECTORS - 1) // BLOCK_SECTORS:
            return Status.BAD_ARGUMENT
        place = overlay.slot(disk, block, True)
        if place == 0:
            return Status.NO_MEMORY
        if load_u64(place) != 0:
            return Status.BAD_ARGUMENT
        store.next_slot = index * SLOTS + i + 1
        disk.overlay.frames = store.next_slot
        store_u64(place, store.next_slot << PAGE_SHIFT | entry & MASK)
    return Status.OK
