"""Saving and restoring pieces of device state as records: a header, then the bytes that saved_layouts.py names, without padding.

A record is refused whole when anything in it is not as it was written: another piece, layout, length or checksum.
"""
from __future__ import annotations

from typing import Final

from hypervisor.addresses import Hva
from hypervisor.arch_x86.intrinsics import copy_memory, fill_memory
from hypervisor.channel.frames import crc_of
from hypervisor.lang import at, sizeof, struct, u32, u64
from hypervisor.saved_layouts import BYTES, FIRST, LENGTHS, MARKS, OFFSETS, Piece
from hypervisor.status import Status

MAGIC: Final[u32] = 0x5453_5256  # "VRST"


@struct
class RecordHeader:
    """Before the bytes of a piece. `mark`: of its layout; `crc`: CRC-32 of the bytes."""

    magic: u32
    piece: u32
    mark: u32
    crc: u32


def bytes_of(piece: Piece) -> u64:
    """How long a record of it is."""
    return sizeof(RecordHeader) + u64(BYTES[piece])


def save(piece: Piece, source: Hva, target: Hva) -> None:
    """Write the record of the state at `source` to `target`, which has bytes_of(piece)."""
    done: u64 = sizeof(RecordHeader)
    for run in range(FIRST[piece], FIRST[piece + 1]):
        copy_memory(target + done, source + OFFSETS[run], LENGTHS[run])
        done += LENGTHS[run]
    header = at(RecordHeader, target)
    header.magic = MAGIC
    header.piece = piece
    header.mark = MARKS[piece]
    header.crc = crc_of(target + sizeof(RecordHeader), BYTES[piece])


def check(piece: Piece, source: Hva, left: u64) -> Status:
    """Whether a whole, undamaged record of this piece stands at `source`, `left` bytes before the end. BAD_ARGUMENT."""
    if left < bytes_of(piece):
        return Status.BAD_ARGUMENT
    header = at(RecordHeader, source)
    if header.magic != MAGIC or header.piece != piece or header.mark != MARKS[piece]:
        return Status.BAD_ARGUMENT
    return Status.OK if header.crc == crc_of(source + sizeof(RecordHeader), BYTES[piece]) else Status.BAD_ARGUMENT


def load(piece: Piece, source: Hva, target: Hva) -> None:
    """Restore the state at `target` from a record that `check` found good."""
    done: u64 = sizeof(RecordHeader)
    for run in range(FIRST[piece], FIRST[piece + 1]):
        copy_memory(target + OFFSETS[run], source + done, LENGTHS[run])
        done += LENGTHS[run]


def forget(piece: Piece, target: Hva) -> None:
    """Overwrite all that a record would restore."""
    for run in range(FIRST[piece], FIRST[piece + 1]):
        fill_memory(target + OFFSETS[run], 0xA5, LENGTHS[run])
