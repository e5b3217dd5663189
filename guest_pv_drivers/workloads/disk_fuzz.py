"""Offers the disk broken rings: random descriptors, tables, indexes and addresses, and resets at any time. Then it must work as ever.

Everything that the device may write to lies in the last SCRATCH frames of memory, so that this kernel outlives it.
"""
from typing import Final

from guest_pv_drivers import command_line, memory, virtio_disk
from guest_pv_drivers.broken_rings import draw, maker, some_address, some_available, some_queue
from guest_pv_drivers.console import say
from guest_pv_drivers.virtio_disk import disk
from hypervisor.arch_x86 import intrinsics
from hypervisor.arch_x86.intrinsics import load_u64, outb, outl, outw, store_u64
from hypervisor.lang import struct, u16, u32, u64

SCRATCH: Final = 64
NEEDS_RESET: Final = 64
DEVICE_BYTES: Final = 256


@struct
class Fuzz:
    """What came of it."""

    broken: u64
    answered: u64


fuzz: Final = Fuzz()


def some_headers() -> None:
    """In scratch memory, at every 512 bytes of its first frames: kinds and sectors of requests, and ranges."""
    for index in range(64):
        place: u64 = maker.scratch + 512 * index
        kind: u64 = draw(16) if draw(8) != 0 else draw(1 << 32)
        store_u64(place, kind)
        store_u64(place + 8, draw(disk.sectors + 64) if draw(8) != 0 else load_u64(place) * 0x1000)
        store_u64(place + 16, draw(disk.sectors + 64))
        store_u64(place + 24, draw(300) | draw(3) << 32)


def some_ring() -> None:
    """One broken ring, and a notification."""
    some_queue()
    if draw(4) == 0:
        some_headers()
    disk.offered = some_available(disk.queue + virtio_disk.AVAILABLE, virtio_disk.SLOTS, disk.offered)
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
    maker.number = command_line.number("seed", 1) | 1
    if not virtio_disk.init(0):
        return 1
    maker.end = memory.frames.count * memory.PAGE_SIZE
    maker.scratch = maker.end - SCRATCH * memory.PAGE_SIZE
    maker.queue = disk.queue
    say(f"fuzz: seed {maker.number}")
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
    frame: u64 = maker.scratch
    for value in range(1, 4):
        store_u64(frame, value)
        if not virtio_disk.now(virtio_disk.WRITE, 8, frame, 4096):
            return 1
        store_u64(frame, 0)
        if not virtio_disk.now(virtio_disk.READ, 8, frame, 4096) or load_u64(frame) != value:
            return 1
    say(f"fuzz ok: {fuzz.broken} of {count} rings broke the device, {fuzz.answered} did not; it works")
    return 0
