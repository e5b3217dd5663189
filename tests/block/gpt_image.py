"""Disk images with a GUID partition table, made from UEFI 2.10, 5.3."""
from __future__ import annotations

import struct
import zlib

SECTOR = 512
LINUX_DATA = bytes.fromhex("af3dc60f838472478e793d69d8477de4")


def header(my: int, other: int, entries_at: int, entries: bytes | bytearray, sectors: int) -> bytes:
    """One sector."""
    fields = (b"EFI PART", 0x10000, 92, 0, 0, my, other, 34, sectors - 34, b"krait-test-disk!", entries_at, 128, 128, zlib.crc32(entries))
    data = struct.pack("<8sIIIIQQQQ16sQIII", *fields)
    crc = zlib.crc32(data)
    return (data[:16] + struct.pack("<I", crc) + data[20:]).ljust(SECTOR, b"\0")


def image(sectors: int, partitions: dict[int, tuple[int, int]]) -> bytearray:
    """An empty disk whose entries (number from 1: first sector, sectors) are as said."""
    entries = bytearray(128 * 128)
    for number, (first, count) in partitions.items():
        struct.pack_into("<16s16sQQ", entries, 128 * (number - 1), LINUX_DATA, bytes([number]) * 16, first, first + count - 1)
    data = bytearray(sectors * SECTOR)
    data[SECTOR:2 * SECTOR] = header(1, sectors - 1, 2, entries, sectors)
    data[2 * SECTOR:34 * SECTOR] = entries
    data[-33 * SECTOR:-SECTOR] = entries
    data[-SECTOR:] = header(sectors - 1, 1, sectors - 33, entries, sectors)
    return data
