"""GUID partition tables of host disks, read at boot: which partition is which range. Nothing in them is trusted.

UEFI 2.10, 5.3.2 (header), 5.3.3 (entries). A damaged first table is replaced by the copy at the disk's end.
"""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor import clock
from hypervisor.addresses import PAGE_SHIFT, PAGE_SIZE, Hpa, hva_of
from hypervisor.arch_x86.intrinsics import load_u8, load_u32, load_u64, pause
from hypervisor.block.host_disk import release_transfer, take_transfer
from hypervisor.block.model import (MAX_PARTITIONS, SECTOR, Direction, DiskState, HostDisk, Outcome, TableState)
from hypervisor.drivers import driver
from hypervisor.lang import u32, u64
from hypervisor.memory import frames

SIGNATURE: Final[u64] = 0x5452_4150_2049_4645  # "EFI PART"
HEADER_LEAST: Final = 92
HEADER_SIZE: Final = 12
HEADER_CRC: Final = 16
MY_LBA: Final = 24
FIRST_USABLE: Final = 40
LAST_USABLE: Final = 48
ENTRIES_LBA: Final = 72
ENTRY_COUNT: Final = 80
ENTRY_SIZE: Final = 84
ENTRIES_CRC: Final = 88
ENTRY_LEAST: Final = 128
FIRST_LBA: Final = 32  # in an entry, behind type and own GUID
LAST_LBA: Final = 40
CRC32: Final = 0xEDB8_8320  # reflected

STATE_NAMES: Final[Annotated[list[str], 3]] = ["", ", GPT", ", GPT (damaged; its copy is used)"]  # by TableState
BUFFER_PAGES: Final = 16  # all entries must fit: twice what 128 of them need
WAIT_NS: Final[u64] = 10_000_000_000


def read_table(host: HostDisk) -> None:
    """Fill host.partitions from the disk's table, if it has one. Boot only: waits for the disk."""
    host.table = TableState.NONE
    buffer = frames.alloc_contiguous(BUFFER_PAGES) if host.sectors >= 3 else Hpa(0)
    if buffer == 0:
        return
    if _take(host, buffer, 1):
        host.table = TableState.GOOD
    elif host.state == DiskState.OK and _take(host, buffer, host.sectors - 1):
        host.table = TableState.COPY
    if host.state == DiskState.OK:  # else it may still write there
        frames.free_contiguous(buffer, BUFFER_PAGES)


def _take(host: HostDisk, buffer: Hpa, lba: u64) -> bool:
    """Read the table whose header lies at `lba`; False: there is none, or it is damaged."""
    header: u64 = hva_of(buffer)
    if not _read(host, lba, 1, buffer) or load_u64(header) != SIGNATURE or load_u64(header + MY_LBA) != lba:
        return False
    size: u64 = load_u32(header + HEADER_SIZE)
    if size < HEADER_LEAST or size > SECTOR or _crc_of_header(header, size) != load_u32(header + HEADER_CRC):
        return False
    count: u64 = load_u32(header + ENTRY_COUNT)
    entry_size: u64 = load_u32(header + ENTRY_SIZE)
    place = load_u64(header + ENTRIES_LBA)
    crc = load_u32(header + ENTRIES_CRC)
    first = load_u64(header + FIRST_USABLE)
    last = load_u64(header + LAST_USABLE)
    if entry_size < ENTRY_LEAST or entry_size > PAGE_SIZE or count > BUFFER_PAGES << PAGE_SHIFT or last >= host.sectors or place >= host.sectors:
        return False
    sectors: u64 = (count * entry_size + SECTOR - 1) // SECTOR
    if sectors == 0 or sectors > BUFFER_PAGES * (PAGE_SIZE // SECTOR) or sectors > host.sectors - place:
        return False
    if not _read(host, place, sectors, buffer) or _crc(header, count * entry_size) != crc:
        return False
    for i in range(min(count, MAX_PARTITIONS)):
        entry = header + i * entry_size
        start = load_u64(entry + FIRST_LBA)
        end = load_u64(entry + LAST_LBA)
        used = load_u64(entry) | load_u64(entry + 8) != 0 and first <= start and start <= end and end <= last
        host.partitions[i].first = start if used else 0
        host.partitions[i].sectors = end - start + 1 if used else 0
    return True


def _crc_of_header(header: u64, size: u64) -> u32:
    """With the field itself taken as zero."""
    return _crc_end(_crc_on(_crc_zeros(_crc_on(0xFFFF_FFFF, header, HEADER_CRC)), header + HEADER_CRC + 4, size - HEADER_CRC - 4))


def _crc(place: u64, length: u64) -> u32:
    return _crc_end(_crc_on(0xFFFF_FFFF, place, length))


def _crc_end(value: u32) -> u32:
    return value ^ 0xFFFF_FFFF


def _crc_on(start: u32, place: u64, length: u64) -> u32:
    value = start
    for i in range(length):
        value = _crc_byte(value, load_u8(place + i))
    return value


def _crc_zeros(start: u32) -> u32:
    """Four bytes of zero."""
    value = start
    for _ in range(4):
        value = _crc_byte(value, 0)
    return value


def _crc_byte(start: u32, byte: u32) -> u32:
    value: u32 = start ^ byte
    for _ in range(8):
        value = value >> 1 ^ (CRC32 if value & 1 != 0 else 0)
    return value


def _read(host: HostDisk, sector: u64, sectors: u64, buffer: Hpa) -> bool:
    """Read into contiguous memory of the hypervisor's, waiting. A disk that does not answer has failed."""
    done: u64 = 0
    while done < sectors:
        part: u64 = min(sectors - done, min(host.most_sectors, 8))
        if not _read_some(host, sector + done, part, Hpa(buffer + done * SECTOR)):
            return False
        done += part
    return True


def _read_some(host: HostDisk, sector: u64, sectors: u64, buffer: Hpa) -> bool:
    """At most a page, which no transfer splits."""
    transfer = take_transfer(host)
    transfer.direction = Direction.READ
    transfer.sector = sector
    transfer.sectors = sectors
    transfer.segment_count = 1
    transfer.segments[0].hpa = buffer
    transfer.segments[0].bytes = u32(sectors * SECTOR)
    driver.start(host, transfer)
    driver.notify(host)
    until: u64 = clock.now() + clock.ticks_of(WAIT_NS)
    ended = driver.reap(host)
    while ended is None and clock.now() < until:
        pause()
        ended = driver.reap(host)
    if ended is None:
        driver.cut_off(host)
        host.state = DiskState.FAILED
        return False
    release_transfer(host, ended)
    return ended.outcome == Outcome.OK
