"""Offers the disk broken rings: random descriptors, tables, indexes and addresses, and resets at any time. Then it must work as ever.

Everything that the device may write to lies in the last SCRATCH frames of memory, so that this kernel outlives it.
"""
from typing import Final

from guest_pv_drivers import command_line, memory, virtio_disk
from guest_pv_drivers.console import say
from guest_pv_drivers.virtio_disk import disk
from hypervisor.arch_x86 import intrinsics
from hypervisor.arch_x86.intrinsics import load_u64, outb, outl, outw, store_u16, store_u64
from hypervisor.lang import struct, u16, u32, u64, wrap_u64

SCRATCH: Final = 64
NEEDS_RESET: Final = 64
DEVICE_BYTES: Final = 256


@struct
class Fuzz:
    """The generator (xorshift64), and what came of it."""

    number: u64
    scratch: u64
    broken: u64
    answered: u64


fuzz: Final = Fuzz()


def draw(below: u64) -> u64:
    """A number from 0 on."""
    x: u64 = fuzz.number
    x = x ^ wrap_u64(x << 13)
    x = x ^ (x >> 7)
    x = x ^ wrap_u64(x << 17)
    fuzz.number = x
    return (x >> 11) % below


def some_address() -> u64:
    """Mostly scratch memory."""
    end: u64 = fuzz.scratch + SCRATCH * memory.PAGE_SIZE
    match u32(draw(64)):
        case 0:
            return end - draw(600)
        case 1:
            return end + draw(1 << 40)
        case 2:
            return 0xFFFF_FFFF_FFFF_FFFF - draw(5000)
        case 3:
            return disk.queue if draw(2) == 0 else fuzz.scratch + 1
        case _:
            return fuzz.scratch + draw(SCRATCH * 8) * 512


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


def some_descriptors(place: u64, count: u64) -> None:
    """A chain of them, first what is read, then what is written, but for a mistake now and then."""
    split: u64 = 1 + draw(count)
    for index in range(count):
        flags: u32 = virtio_disk.DEVICE_WRITES if index >= split else 0
        if index + 1 < count:
            flags = flags | virtio_disk.NEXT
        if draw(64) == 0:
            flags = u32(draw(8) if draw(2) else draw(0x10000))
        following: u32 = u32(draw(70)) if draw(64) == 0 else u32(index + 1)
        length: u32 = 16 if index == 0 and draw(2) else some_length()
        virtio_disk.put_descriptor(place + 16 * index, some_address(), length, flags, following)


def some_headers() -> None:
    """In scratch memory, at every 512 bytes of its first frames: kinds and sectors of requests, and ranges."""
    for index in range(64):
        place: u64 = fuzz.scratch + 512 * index
        kind: u64 = draw(16) if draw(8) != 0 else draw(1 << 32)
        store_u64(place, kind)
        store_u64(place + 8, draw(disk.sectors + 64) if draw(8) != 0 else load_u64(place) * 0x1000)
        store_u64(place + 16, draw(disk.sectors + 64))
        store_u64(place + 24, draw(300) | draw(3) << 32)


def some_head() -> u16:
    """The chain, the one with a table, or anything."""
    return u16(draw(2) * 8 if draw(40) else draw(0x10000))


def some_ring() -> None:
    """One broken ring, and a notification."""
    some_descriptors(disk.queue, 1 + draw(6))
    table: u64 = fuzz.scratch + 512 * draw(8)
    count: u64 = 1 + draw(6)
    some_descriptors(table, count)
    virtio_disk.put_descriptor(disk.queue + 16 * 8, table, u32(16 * count), virtio_disk.INDIRECT, 0)
    if draw(4) == 0:
        some_headers()
    for index in range(4):
        store_u16(disk.queue + virtio_disk.AVAILABLE + 4 + 2 * (disk.offered + index & virtio_disk.SLOTS - 1), some_head())
    disk.offered = u32(disk.offered + (1 + draw(4) if draw(40) else draw(0x10000)) & 0xFFFF)
    store_u16(disk.queue + virtio_disk.AVAILABLE + 2, u16(disk.offered))
    outw(virtio_disk.port(virtio_disk.NOTIFY), 0)


def some_registers() -> None:
    """Any registers, any values, any sizes; rings at any place."""
    for _ in range(8):
        register: u16 = virtio_disk.port(u32(draw(DEVICE_BYTES)))
        match u32(draw(3)):
            case 0:
                outb(register, intrinsics.inb(register) if draw(2) else u32(draw(256)) & 0xFF)
            case 1:
                outw(register, u16(draw(0x10000)))
            case _:
                outl(register, u32(some_address() & 0xFFFF_FFFF))


def disk_fuzz() -> u32:
    """`count=` rings from `seed=`."""
    count = command_line.number("count", 2000)
    fuzz.number = command_line.number("seed", 1) | 1
    fuzz.scratch = (memory.frames.count - SCRATCH) * memory.PAGE_SIZE
    if not virtio_disk.init(0):
        return 1
    say(f"fuzz: seed {fuzz.number}")
    for _ in range(count):
        some_ring()
        if draw(64) == 0:
            some_registers()
        if intrinsics.inb(virtio_disk.port(virtio_disk.STATUS)) & NEEDS_RESET != 0:
            fuzz.broken += 1
            virtio_disk.reset()
        elif draw(64) == 0:
            virtio_disk.reset()
        else:
            fuzz.answered += 1
    virtio_disk.reset()
    frame: u64 = fuzz.scratch
    for value in range(1, 4):
        store_u64(frame, value)
        if not virtio_disk.now(virtio_disk.WRITE, 8, frame, 4096):
            return 1
        store_u64(frame, 0)
        if not virtio_disk.now(virtio_disk.READ, 8, frame, 4096) or load_u64(frame) != value:
            return 1
    say(f"fuzz ok: {fuzz.broken} of {count} rings broke the device, {fuzz.answered} did not; it works")
    return 0
