"""The layout of overlays on the host disk, and what is written and believed of it. overlay_store.py tells the whole."""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor.addresses import PAGE_SHIFT, Hpa, Hva, hva_of
from hypervisor.arch_x86.intrinsics import load_u64, store_u64
from hypervisor.block import overlay
from hypervisor.block.model import SECTOR, Direction, Store, StoreState, Transfer, VirtualDisk
from hypervisor.block.overlay import BLOCK_SECTORS, FRAME, MAP_KEYS
from hypervisor.console import say
from hypervisor.lang import address, at, struct, text_at, u32, u64, wrap_u64

HEADER_MAGIC: Final[u64] = 0x564F_5449_4152_4B00  # "\0KRAITOV"
MAP_MAGIC: Final[u64] = 0x504D_5449_4152_4B00  # "\0KRAITMP"
VERSION: Final = 1
MASK: Final[u64] = 0xFF
KEY: Final[u64] = 0x9E37_79B9_7F4A_7C15
WORDS: Final = 64
CHECKSUM_WORD: Final = 1
HEADERS: Final = 2
SLOTS: Final = 59  # of a map sector
MAPS_A_FRAME: Final = 8


@struct
class Header:
    """A sector. What it says of base and range has to fit."""

    magic: u64
    checksum: u64
    version: u64
    sequence: u64
    epoch: u64
    base_first: u64
    base_sectors: u64
    first: u64
    sectors: u64
    known: u64  # map sectors that have a valid copy
    rest: Annotated[list[u64], 54]


@struct
class MapSector:
    """Entries by slot: number of the block, above which of its sectors were written; 0: not in use."""

    magic: u64
    checksum: u64
    epoch: u64
    index: u64
    sequence: u64
    entries: Annotated[list[u64], SLOTS]


def checksum(place: u64) -> u64:
    """Of a sector, its own field left out."""
    value: u64 = KEY
    for word in range(WORDS):
        if word != CHECKSUM_WORD:
            value = wrap_u64((value ^ load_u64(place + 8 * word)) * KEY)
            value = value ^ (value >> 32)
    return value


def is_header(header: Header) -> bool:
    """Can this copy be believed?"""
    return header.magic == HEADER_MAGIC and header.checksum == checksum(address(header))


def counts(store: Store, sector: MapSector, index: u64) -> bool:
    """Can this copy of map sector `index` be believed, and is it of this epoch?"""
    return sector.magic == MAP_MAGIC and sector.epoch == store.epoch and sector.index == index and sector.checksum == checksum(address(sector))


def place_of(store: Store, entry: u64, sector: u64) -> u64:
    """Sector of the host disk; 0 for the entry 0."""
    return 0 if entry == 0 else slots_at(store) + ((entry >> PAGE_SHIFT) - 1) * BLOCK_SECTORS + sector % BLOCK_SECTORS


def slots_at(store: Store) -> u64:
    """Sector of the host disk where slot 0 begins."""
    return store.first + (HEADERS + 2 * store.map_sectors + BLOCK_SECTORS - 1 & ~(BLOCK_SECTORS - 1))


def map_at(store: Store, index: u64, copy: u64) -> u64:
    """Sector of the host disk where copy 0 or 1 of a map sector lies."""
    return store.first + HEADERS + copy * store.map_sectors + index


def image_of(disk: VirtualDisk, index: u64, make: bool) -> Hva:
    """A map sector in memory; 0: there is none, and it was not to be made or there is no memory."""
    place = overlay.slot(disk, MAP_KEYS + index // MAPS_A_FRAME, make)
    if place == 0:
        return Hva(0)
    if load_u64(place) == 0 and make:
        store_u64(place, overlay.take_frame(disk))
    frame = Hpa(load_u64(place) & FRAME)
    return Hva(0) if frame == 0 else Hva(hva_of(frame) + index % MAPS_A_FRAME * SECTOR)


def move(transfer: Transfer, direction: Direction, sector: u64, sectors: u64, hpa: u64) -> None:
    """Let an empty transfer read or write sectors of the host disk, from or to the hypervisor's memory."""
    transfer.direction = direction
    transfer.sector = sector
    transfer.sectors = sectors
    transfer.segment_count = 1
    transfer.segments[0].hpa = Hpa(hpa)
    transfer.segments[0].bytes = u32(sectors * SECTOR)


def put_header(disk: VirtualDisk, transfer: Transfer) -> None:
    """Write it over its older copy."""
    store = disk.overlay.store
    header = at(Header, hva_of(store.buffers[0]))
    for word in range(WORDS):
        store_u64(hva_of(store.buffers[0]) + 8 * word, 0)
    store.sequence += 1
    header.magic = HEADER_MAGIC
    header.version = VERSION
    header.sequence = store.sequence
    header.epoch = store.epoch
    header.base_first = disk.first
    header.base_sectors = disk.sectors
    header.first = store.first
    header.sectors = store.sectors
    header.known = store.known
    header.checksum = checksum(address(header))
    move(transfer, Direction.WRITE, store.first + (store.sequence & 1), 1, store.buffers[0])


def fail(disk: VirtualDisk, why: str) -> None:
    """Nothing of it is used any more: every request of the disk fails."""
    vm = disk.vm
    assert vm is not None
    disk.overlay.store.state = StoreState.FAILED
    say(f"disk '{text_at(address(disk.name))}' of vm '{text_at(address(vm.name))}': its overlay cannot be used: {why}; every request fails until `undo`")
