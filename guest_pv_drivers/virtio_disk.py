"""Driver of a virtio block device (virtio 1.1): one queue, indirect descriptors, event indexes; registers in I/O space.

    disk = virtio_disk.disk
    if virtio_disk.init(0): slot = virtio_disk.submit(READ, sector, frame, 4096); virtio_disk.kick(); ...
    virtio_disk.reap() answers a finished slot, NO_SLOT if there is none; wait() sleeps until there is one.

The device's capabilities are where Krait puts them (docs/disks.md): this driver does not walk them.
"""
from typing import Annotated, Final

from guest_pv_drivers import memory, pci, threads
from hypervisor.abi import EVENT_DEVICE
from hypervisor.arch_x86 import intrinsics
from hypervisor.arch_x86.intrinsics import (load_u8, load_u16, load_u32, outb, outl, outw, store_u16, store_u32, store_u64)
from hypervisor.lang import address, struct, u8, u16, u32, u64, wrap_u16

IDENTITY: Final[u32] = 0x1042_1AF4
READ: Final = 0
WRITE: Final = 1
FLUSH: Final = 4
SLOTS: Final = 64  # requests in flight at most; the size of the queue
NO_SLOT: Final = SLOTS
OK: Final = 0

# Registers, from BAR 0 on.
FEATURE_SELECT: Final = 0x00
DRIVER_SELECT: Final = 0x08
DRIVER_FEATURE: Final = 0x0C
STATUS: Final = 0x14
QUEUE_SELECT: Final = 0x16
QUEUE_SIZE: Final = 0x18
QUEUE_ENABLE: Final = 0x1C
QUEUE_DESCRIPTORS: Final = 0x20
QUEUE_AVAILABLE: Final = 0x28
QUEUE_USED: Final = 0x30
DEVICE: Final = 0x80
NOTIFY: Final = 0xC0
ACKNOWLEDGE_DRIVER: Final = 3
FEATURES_OK: Final = 8
DRIVER_OK: Final = 4
FEATURES_LOW: Final[u32] = 1 << 29 | 1 << 28 | 1 << 9  # event index, indirect, flush
FEATURES_HIGH: Final = 1  # version 1
INDIRECT: Final = 4
NEXT: Final = 1
DEVICE_WRITES: Final = 2

# Places in the frames of the queue.
AVAILABLE: Final = 1024
USED: Final = 2048
TABLE_BYTES: Final = 48  # three descriptors
HEADERS: Final = 3072  # behind the tables
STATUSES: Final = 0  # in a third frame


@struct
class Disk:
    """The disk, its queue, and which slots are in flight."""

    io: u32
    sectors: u64
    queue: u64  # frame addresses
    tables: u64
    statuses: u64
    offered: u32  # index of the next chain offered
    told: u32  # up to which the device was told
    taken: u32  # index of the next chain to take from the used ring
    in_flight: u32
    kicks: u64  # notifications sent
    busy: Annotated[list[u8], SLOTS]


disk: Final = Disk()


def init(number: u32) -> bool:
    """Find block device `number`, from 0, and take it into use; False: there is none."""
    slot = pci.find(IDENTITY, number)
    if slot == pci.SLOTS:
        return False
    disk.io = pci.io_base(slot)
    disk.queue = memory.alloc() * memory.PAGE_SIZE
    disk.tables = memory.alloc() * memory.PAGE_SIZE
    disk.statuses = memory.alloc() * memory.PAGE_SIZE
    disk.sectors = u64(intrinsics.inl(u16(disk.io + DEVICE + 4))) << 32 | intrinsics.inl(u16(disk.io + DEVICE))
    reset()
    return True


def port(register: u32) -> u16:
    """The I/O port of a register."""
    return u16(disk.io + register)


def reset() -> None:
    """Set the device up anew; nothing is in flight."""
    outb(port(STATUS), 0)
    while intrinsics.inb(port(STATUS)) != 0:
        intrinsics.pause()
    outb(port(STATUS), ACKNOWLEDGE_DRIVER)
    outl(port(DRIVER_SELECT), 0)
    outl(port(DRIVER_FEATURE), FEATURES_LOW)
    outl(port(DRIVER_SELECT), 1)
    outl(port(DRIVER_FEATURE), FEATURES_HIGH)
    outb(port(STATUS), ACKNOWLEDGE_DRIVER | FEATURES_OK)
    intrinsics.fill_memory(disk.queue, 0, memory.PAGE_SIZE)
    outw(port(QUEUE_SELECT), 0)
    outw(port(QUEUE_SIZE), SLOTS)
    set_address(QUEUE_DESCRIPTORS, disk.queue)
    set_address(QUEUE_AVAILABLE, disk.queue + AVAILABLE)
    set_address(QUEUE_USED, disk.queue + USED)
    outw(port(QUEUE_ENABLE), 1)
    outb(port(STATUS), ACKNOWLEDGE_DRIVER | FEATURES_OK | DRIVER_OK)
    disk.offered = 0
    disk.told = 0
    disk.taken = 0
    disk.in_flight = 0
    for index in range(SLOTS):
        disk.busy[index] = 0


def set_address(register: u32, place: u64) -> None:
    """A 64-bit register."""
    outl(port(register), u32(place & 0xFFFF_FFFF))
    outl(port(register + 4), u32(place >> 32))


def put_descriptor(place: u64, gpa: u64, length: u32, flags: u32, following: u32) -> None:
    """struct virtq_desc."""
    store_u64(place, gpa)
    store_u32(place + 8, length)
    store_u32(place + 12, following << 16 | flags)


def submit(kind: u32, sector: u64, buffer: u64, length: u32) -> u32:
    """Offer a request; the slot that names it, NO_SLOT: all are in flight. The device learns of it by kick. FLUSH: length 0."""
    slot: u32 = 0
    while slot < SLOTS and disk.busy[slot] != 0:
        slot += 1
    if slot == SLOTS:
        return NO_SLOT
    disk.busy[slot] = 1
    disk.in_flight += 1
    header: u64 = disk.tables + HEADERS + 16 * slot
    store_u32(header, kind)
    store_u32(header + 4, 0)
    store_u64(header + 8, sector)
    table: u64 = disk.tables + TABLE_BYTES * slot
    put_descriptor(table, header, 16, NEXT, 1)
    last: u32 = 1
    if length != 0:
        put_descriptor(table + 16, buffer, length, NEXT | DEVICE_WRITES if kind == READ else NEXT, 2)
        last = 2
    put_descriptor(table + 16 * last, disk.statuses + slot, 1, DEVICE_WRITES, 0)
    put_descriptor(disk.queue + 16 * slot, table, 16 * (last + 1), INDIRECT, 0)
    store_u16(disk.queue + AVAILABLE + 4 + 2 * (disk.offered & (SLOTS - 1)), u16(slot))
    disk.offered = disk.offered + 1 & 0xFFFF
    return slot


def kick() -> None:
    """Tell the device of what was offered, if it wants to know."""
    store_u16(disk.queue + AVAILABLE + 2, u16(disk.offered))
    intrinsics.atomic_or_u64(address(disk), 0)  # the index is seen before the event is fetched
    event: u32 = load_u16(disk.queue + USED + 4 + 8 * SLOTS)
    if wrap_u16(disk.offered - event - 1) < wrap_u16(disk.offered - disk.told):
        disk.kicks += 1
        outw(port(NOTIFY), 0)
    disk.told = disk.offered


def reap() -> u32:
    """A request that has ended, taken from the used ring; NO_SLOT: none."""
    if load_u16(disk.queue + USED + 2) == disk.taken:
        return NO_SLOT
    slot = load_u32(disk.queue + USED + 4 + 8 * (disk.taken & (SLOTS - 1)))
    assert slot < SLOTS and disk.busy[slot] != 0, "the device gave back what it was not given"
    disk.taken = disk.taken + 1 & 0xFFFF
    disk.busy[slot] = 0
    disk.in_flight -= 1
    return slot


def status_of(slot: u32) -> u8:
    """How a request that was reaped ended: OK, or VIRTIO_BLK_S_*."""
    return load_u8(disk.statuses + slot)


def wait() -> u32:
    """A request that has ended, once there is one; something is in flight."""
    slot = reap()
    while slot == NO_SLOT:
        store_u16(disk.queue + AVAILABLE + 4 + 2 * SLOTS, u16(disk.taken))  # interrupt at the next one
        intrinsics.atomic_or_u64(address(disk), 0)  # before the look at what has ended
        slot = reap()
        if slot == NO_SLOT:
            threads.wait(EVENT_DEVICE, 0)
            slot = reap()
    return slot


def now(kind: u32, sector: u64, buffer: u64, length: u32) -> bool:
    """One request and its end, nothing else in flight; whether it went well."""
    slot = submit(kind, sector, buffer, length)
    kick()
    return wait() == slot and status_of(slot) == OK
