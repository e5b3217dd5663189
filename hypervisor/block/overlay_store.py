"""Overlays whose blocks lie on the host disk, in a range of their own: what is written there outlives the machine if that is asked for.

| sectors of the range | what |
|---|---|
| 0, 1 | header, two copies: the valid one with the higher sequence number counts |
| 2 on | map, then its other copy: a sector tells which blocks of the base SLOTS slots hold, and which sectors of each |
| behind | slots of 4 KiB |

Crash consistency rests on order. Data goes to its slot; the map in memory learns of it when it has been written; a guest's FLUSH first
flushes the disk, then writes the map sectors that have changed, each over its older copy, then flushes again. So a map sector never
tells of data that may be lost, and a write of it that is cut leaves the other copy. Slots are never given to another block; what is
forgotten at once is all, by a new epoch in the header. Nothing read back is believed without magic number, epoch, place and
checksum; a map sector that the header vouches for and that has no valid copy is damage: the overlay is not used then.

What is to be done, opening included, is done step by step when a request of the disk comes to its turn (scheduler.py).
"""
from __future__ import annotations

from enum import IntEnum
from typing import Final

from hypervisor.addresses import PAGE_SHIFT, Hpa, Hva, hva_of
from hypervisor.arch_x86.intrinsics import bsf, load_u64, store_u64
from hypervisor.block import overlay, overlay_opening
from hypervisor.block.model import SECTOR, Direction, Outcome, Request, StoreState, Transfer, VirtualDisk
from hypervisor.block.overlay import BLOCK_SECTORS, ENTRIES, FRAME, MAP_KEYS
from hypervisor.block.overlay_map import (MAP_MAGIC, MAPS_A_FRAME, MASK, SLOTS, MapSector, checksum, fail, image_of, map_at, move, place_of,
                                          put_header, slots_at)
from hypervisor.lang import address, at, struct, u64
from hypervisor.status import Status

GROUP_SECTORS: Final = 2 + SLOTS * BLOCK_SECTORS
LEAST_SECTORS: Final = 16 + GROUP_SECTORS
MOST_SECTORS: Final[u64] = 1 << 24  # 8 GiB
PART_SECTORS: Final = 64  # of a transfer


class Step(IntEnum):
    """What `fill` has found to do."""

    TRANSFER = 0
    WORK = 1  # done, up to 45 k instructions
    NOTHING = 2


@struct
class Found:
    """Where the next of a request goes on the host disk."""

    sector: u64
    most: u64


found: Final = Found()


def create(disk: VirtualDisk, first: u64, sectors: u64, kept: bool) -> bool:
    """Give a new disk an overlay in this range of its host disk, with what an earlier run left there if it is `kept`.

    The caller has checked the range. False: it is too small or too large, or there is no memory.
    """
    store = disk.overlay.store
    if sectors < LEAST_SECTORS or sectors > MOST_SECTORS or disk.sectors > MAP_KEYS * BLOCK_SECTORS:
        return False
    store.first = first
    store.sectors = sectors
    store.map_sectors = (sectors - 16) // GROUP_SECTORS
    store.kept = kept
    store.buffers[0] = overlay.take_frame(disk)
    store.buffers[1] = overlay.take_frame(disk)
    if not kept:
        overlay_opening.start_over(disk)
    return overlay.create(disk, store.map_sectors * SLOTS << PAGE_SHIFT) and store.buffers[0] != 0 and store.buffers[1] != 0


def is_held_up(disk: VirtualDisk) -> bool:
    """Must its queue wait: for a step of the store's own, or a FLUSH for what is being written?"""
    store = disk.overlay.store
    head = disk.queue
    return store.stepping or store.writing != 0 and head is not None and head.direction == Direction.FLUSH


def find(disk: VirtualDisk, request: Request) -> Status:
    """Where the next sectors of a READ or WRITE lie on the host disk: `found`. NO_MEMORY: a WRITE finds the overlay full."""
    sector: u64 = request.sector + request.started
    most: u64 = min(request.sectors - request.started, PART_SECTORS)
    writes = request.direction == Direction.WRITE
    found.sector = disk.first + sector
    found.most = most
    entry = _holding(disk, sector) if writes else overlay.entry_of(disk, sector)
    if writes and entry == 0:
        return Status.NO_MEMORY
    if not writes and not overlay.has(entry, sector):
        found.most = overlay.unwritten(disk, sector, most)
        return Status.OK
    start = place_of(disk.overlay.store, entry, sector)
    count: u64 = 1
    while count < most:
        entry = _holding(disk, sector + count) if writes else overlay.entry_of(disk, sector + count)
        if not writes and not overlay.has(entry, sector + count) or place_of(disk.overlay.store, entry, sector + count) != start + count:
            break
        count += 1
    found.sector = start
    found.most = count
    return Status.OK


def _holding(disk: VirtualDisk, sector: u64) -> u64:
    """The entry of a sector's block, which is given a slot if it has none; 0: there is none, or no memory."""
    store = disk.overlay.store
    block: u64 = sector // BLOCK_SECTORS
    place = overlay.slot(disk, block, True)
    if place == 0 or load_u64(place) != 0:
        return 0 if place == 0 else load_u64(place)
    index: u64 = store.next_slot // SLOTS
    image = image_of(disk, index, True) if index < store.map_sectors else Hva(0)
    if image == 0:
        return 0
    at(MapSector, image).entries[store.next_slot % SLOTS] = block << 8
    store.next_slot += 1
    disk.overlay.frames += 1
    store_u64(place, store.next_slot << PAGE_SHIFT)
    return store.next_slot << PAGE_SHIFT


def fill(disk: VirtualDisk, request: Request, transfer: Transfer) -> Step:
    """Let an empty transfer do the next step that `request` waits for: of opening, or what a FLUSH asks for."""
    transfer.own = True
    if disk.overlay.store.state == StoreState.OPEN:
        return _make_durable(disk, request, transfer)
    return Step.TRANSFER if overlay_opening.fill(disk, transfer) else Step.WORK


def _make_durable(disk: VirtualDisk, request: Request, transfer: Transfer) -> Step:
    """A FLUSH's next step; request.started says how many are done, segment_used whether a map sector was written."""
    store = disk.overlay.store
    host = disk.host
    assert host is not None
    if request.started == 0:
        request.started = 1
        if store.header_due:
            store.header_due = False
            put_header(disk, transfer)
            return Step.TRANSFER
    if request.started == 1:
        request.started = 2
        if host.can_flush:
            transfer.direction = Direction.FLUSH
            return Step.TRANSFER
    if request.started == 2 and store.dirty != 0:
        _put_map(disk, transfer)
        request.segment_used = 1
        return Step.TRANSFER
    if request.started == 2:
        request.started = 3
        if request.segment_used != 0 and host.can_flush:
            transfer.direction = Direction.FLUSH
            return Step.TRANSFER
    if store.known < store.reached:
        store.known = store.reached
        store.header_due = True  # now, and not before, it may say so
    return Step.NOTHING


def _put_map(disk: VirtualDisk, transfer: Transfer) -> None:
    """Write a map sector that has changed over its older copy."""
    store = disk.overlay.store
    key: u64 = MAP_KEYS + store.dirty_from // MAPS_A_FRAME
    place = overlay.slot(disk, key, False)
    while place == 0 or load_u64(place) & MASK == 0:
        key = key + 1 if place != 0 else (key | ENTRIES - 1) + 1  # a table is missing where a cut left nothing of a large FLUSH but its end
        place = Hva(place + 8) if key % ENTRIES != 0 else overlay.slot(disk, key, False)
    entry = load_u64(place)
    number = bsf(entry & MASK)
    store_u64(place, entry & ~(1 << (number & 63)))
    store.dirty -= 1
    index: u64 = (key - MAP_KEYS) * MAPS_A_FRAME + number
    store.dirty_from = index
    store.reached = max(store.reached, index + 1)
    hpa: u64 = (entry & FRAME) + number * SECTOR
    image = at(MapSector, hva_of(Hpa(hpa)))
    image.magic = MAP_MAGIC
    image.epoch = store.epoch
    image.index = index
    image.sequence += 1
    image.checksum = checksum(address(image))
    move(transfer, Direction.WRITE, map_at(store, index, image.sequence & 1), 1, hpa)


def ended(disk: VirtualDisk, transfer: Transfer) -> None:
    """A transfer has ended: the store's own, or of data."""
    store = disk.overlay.store
    failed = transfer.outcome != Outcome.OK
    if not transfer.own:
        if transfer.direction == Direction.WRITE:
            store.writing -= 1
            if not failed:
                _wrote(disk, transfer)
        return
    store.stepping = False
    if failed:
        fail(disk, "a transfer of its map has failed")
    elif store.state != StoreState.OPEN:
        overlay_opening.ended(disk)


def _wrote(disk: VirtualDisk, transfer: Transfer) -> None:
    """Data lie in their slots: from now on they are read from there, and the next FLUSH makes that last."""
    store = disk.overlay.store
    done: u64 = 0
    while done < transfer.sectors:
        offset: u64 = transfer.sector + done - slots_at(store)
        count: u64 = min(BLOCK_SECTORS - offset % BLOCK_SECTORS, transfer.sectors - done)
        bits: u64 = (1 << (count & 63)) - 1 << (offset % BLOCK_SECTORS & 7)
        slot: u64 = offset // BLOCK_SECTORS
        image = at(MapSector, image_of(disk, slot // SLOTS, False))
        entry: u64 = image.entries[slot % SLOTS]
        if entry & bits != bits:
            image.entries[slot % SLOTS] = entry | bits
            place = overlay.slot(disk, entry >> 8, False)
            store_u64(place, load_u64(place) | bits)
            _mark(disk, slot // SLOTS)
        done += count


def _mark(disk: VirtualDisk, index: u64) -> None:
    """A map sector has changed."""
    store = disk.overlay.store
    place = overlay.slot(disk, MAP_KEYS + index // MAPS_A_FRAME, False)
    entry = load_u64(place)
    bit: u64 = 1 << (index % MAPS_A_FRAME & 7)
    if entry & bit == 0:
        store_u64(place, entry | bit)
        store.dirty_from = index if store.dirty == 0 else min(store.dirty_from, index)
        store.dirty += 1
