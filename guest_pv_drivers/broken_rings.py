"""Descriptors and tables as no driver should offer them: mostly right, with a mistake now and then. For tests on and off target.

What a device may write to lies in scratch memory at the end of RAM. `shift` is what makes a guest-physical address one of this program's.
"""
from typing import Final

from hypervisor.arch_x86.intrinsics import store_u16, store_u32, store_u64
from hypervisor.lang import struct, u16, u32, u64, wrap_u64

TABLES: Final = 8  # indirect tables at the beginning of scratch memory, 512 bytes each
TABLE_HEAD: Final = 8  # the descriptor that refers to one of them
NEXT: Final = 1
DEVICE_WRITES: Final = 2
INDIRECT: Final = 4


@struct
class Maker:
    """The generator (xorshift64), and the guest's memory."""

    number: u64
    shift: u64
    scratch: u64  # guest-physical, page-aligned
    end: u64  # of scratch and RAM
    queue: u64  # descriptor table


maker: Final = Maker()


def draw(below: u64) -> u64:
    """A number from 0 on."""
    x: u64 = maker.number
    x = x ^ wrap_u64(x << 13)
    x = x ^ (x >> 7)
    x = x ^ wrap_u64(x << 17)
    maker.number = x
    return (x >> 11) % below


def some_address() -> u64:
    """Mostly scratch memory."""
    match u32(draw(64)):
        case 0:
            return maker.end - draw(600)
        case 1:
            return maker.end + draw(1 << 40)
        case 2:
            return 0xFFFF_FFFF_FFFF_FFFF - draw(5000)
        case 3:
            return maker.queue if draw(2) == 0 else maker.scratch + 1
        case _:
            return maker.scratch + draw((maker.end - maker.scratch) // 512) * 512


def some_length() -> u32:
    """Mostly what a request has."""
    match u32(draw(64)):
        case 0:
            return 0
        case 1:
            return u32(draw(1 << 32))
        case 2:
            return 0xFFFF_FFFF
        case 3 | 4 | 5 | 6:
            return 1
        case 7 | 8 | 9 | 10:
            return 16
        case 11:
            return u32(draw(70)) * 512
        case _:
            return 512


def put_descriptor(place: u64, gpa: u64, length: u32, flags: u32, following: u32) -> None:
    """struct virtq_desc at a guest-physical address."""
    here = wrap_u64(place + maker.shift)
    store_u64(here, gpa)
    store_u32(here + 8, length)
    store_u32(here + 12, following << 16 | flags)


def some_descriptors(place: u64, count: u64) -> None:
    """A chain of them, first what is read, then what is written, but for a mistake now and then."""
    split: u64 = 1 + draw(count)
    for index in range(count):
        flags: u32 = DEVICE_WRITES if index >= split else 0
        if index + 1 < count:
            flags = flags | NEXT
        if draw(64) == 0:
            flags = u32(draw(8) if draw(2) else draw(0x10000))
        following: u32 = u32(draw(70)) if draw(64) == 0 else u32(index + 1)
        length: u32 = 16 if index == 0 and draw(2) else some_length()
        put_descriptor(place + 16 * index, some_address(), length, flags, following)


def some_queue() -> None:
    """A chain from descriptor 0 on, and one by a table at TABLE_HEAD."""
    some_descriptors(maker.queue, 1 + draw(6))
    table: u64 = maker.scratch + 512 * draw(TABLES)
    count: u64 = 1 + draw(6) if draw(40) else 1 + draw(32)
    some_descriptors(table, count)
    length: u64 = 16 * count if draw(40) else draw(2000)
    put_descriptor(maker.queue + 16 * TABLE_HEAD, table, u32(length), INDIRECT, 0)


def some_head() -> u16:
    """The chain, the one with a table, or anything."""
    return u16(draw(2) * TABLE_HEAD if draw(40) else draw(0x10000))


def some_available(ring: u64, size: u32, offered: u32) -> u32:
    """Offer a few chains, or far too many, in a driver area; the new index."""
    for index in range(4):
        store_u16(wrap_u64(ring + maker.shift) + 4 + 2 * (offered + index & size - 1), some_head())
    after = u32(offered + (1 + draw(4) if draw(40) else draw(0x10000)) & 0xFFFF)
    store_u16(wrap_u64(ring + maker.shift) + 2, u16(after))
    return after
