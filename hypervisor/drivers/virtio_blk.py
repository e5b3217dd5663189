"""virtio-blk by PCI, modern interface: one split queue, each transfer one indirect descriptor table.

Virtual I/O Device (VIRTIO) 1.1: 2.6 (split virtqueues), 3.1 (initialization), 4.1 (PCI), 5.2 (block device).
"""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor import clock
from hypervisor.addresses import PAGE_SIZE, Hva, hpa_of, hva_of
from hypervisor.arch_x86 import paging
from hypervisor.arch_x86.intrinsics import (atomic_or_u64, compiler_barrier, fill_memory, load_u8, load_u16, load_u32, load_u64,
                                            pause, store_u8, store_u16, store_u32)
from hypervisor.block.host_disk import transfer_of
from hypervisor.block.model import (DISK_NAME_BYTES, MAX_HOST_DISKS, MAX_REQUEST_SECTORS, MAX_SEGMENTS, TRANSFERS_A_DISK, Direction,
                                    DriverKind, HostDisk, Outcome, Transfer)
from hypervisor.drivers import pci
from hypervisor.drivers.pci import Bar, Device
from hypervisor.lang import address, array, at, offsetof, sizeof, struct, u8, u16, u32, u64, wrap_u16
from hypervisor.memory import frames
from hypervisor.status import Status

VENDOR: Final = 0x1AF4
DEVICE_BLOCK: Final = 0x1042
DEVICE_BLOCK_TRANSITIONAL: Final = 0x1001

# Capabilities (4.1.4): cfg_type at +3, BAR at +4, offset at +8, length at +12; notify multiplier at +16.
CAP_VENDOR: Final = 0x09
CAP_COMMON_CFG: Final = 1
CAP_NOTIFY_CFG: Final = 2
CAP_ISR_CFG: Final = 3
CAP_DEVICE_CFG: Final = 4

# Common configuration (4.1.4.3).
DEVICE_FEATURE_SELECT: Final = 0x00
DEVICE_FEATURE: Final = 0x04
DRIVER_FEATURE_SELECT: Final = 0x08
DRIVER_FEATURE: Final = 0x0C
DEVICE_STATUS: Final = 0x14
QUEUE_SELECT: Final = 0x16
QUEUE_SIZE: Final = 0x18
QUEUE_MSIX_VECTOR: Final = 0x1A
QUEUE_ENABLE: Final = 0x1C
QUEUE_NOTIFY_OFF: Final = 0x1E
QUEUE_DESC: Final = 0x20
QUEUE_DRIVER: Final = 0x28
QUEUE_DEVICE: Final = 0x30

STATUS_ACKNOWLEDGE: Final = 1
STATUS_DRIVER: Final = 2
STATUS_DRIVER_OK: Final = 4
STATUS_FEATURES_OK: Final = 8

F_RO: Final[u64] = 1 << 5
F_BLK_SIZE: Final[u64] = 1 << 6
F_FLUSH: Final[u64] = 1 << 9
F_SEG_MAX: Final[u64] = 1 << 2
F_DISCARD: Final[u64] = 1 << 13
F_INDIRECT_DESC: Final[u64] = 1 << 28
F_VERSION_1: Final[u64] = 1 << 32
WANTED: Final[u64] = F_RO | F_BLK_SIZE | F_FLUSH | F_SEG_MAX | F_DISCARD | F_INDIRECT_DESC | F_VERSION_1

# Device configuration (5.2.4).
CFG_CAPACITY: Final = 0
CFG_SEG_MAX: Final = 12
CFG_BLK_SIZE: Final = 20
CFG_MAX_DISCARD_SECTORS: Final = 36

TYPE_IN: Final = 0
TYPE_OUT: Final = 1
TYPE_FLUSH: Final = 4
TYPE_GET_ID: Final = 8
TYPE_DISCARD: Final = 11
ID_BYTES: Final = 20
TYPES: Final[Annotated[list[u32], 4]] = [TYPE_IN, TYPE_OUT, TYPE_FLUSH, TYPE_DISCARD]  # by Direction
STATUS_OK: Final = 0
STATUS_NOT_YET: Final = 0xFF

DESC_NEXT: Final = 1
DESC_WRITE: Final = 2
DESC_INDIRECT: Final = 4
AVAIL_NO_INTERRUPT: Final = 1
QUEUE_MOST: Final = 64
DESCRIPTORS: Final = MAX_SEGMENTS + 2
ID_WAIT_NS: Final[u64] = 1_000_000_000


@struct
class Descriptor:
    """One piece of memory of a request (2.6.5)."""

    place: u64
    length: u32
    flags: u16
    next: u16


@struct
class Slot:
    """What the device reads and writes for one transfer."""

    type: u32
    reserved: u32
    sector: u64
    discard_sector: u64
    discard_sectors: u32
    discard_flags: u32
    status: u8
    id: Annotated[list[u8], ID_BYTES]
    table: Annotated[list[Descriptor], DESCRIPTORS]


@struct
class Ring:
    """The queue, in the layout of 2.6.2 for QUEUE_MOST entries."""

    descriptors: Annotated[list[Descriptor], QUEUE_MOST]
    avail_flags: u16
    avail_index: u16
    avail: Annotated[list[u16], QUEUE_MOST]
    used_event: u16
    used: Annotated[list[u32], 2 * QUEUE_MOST + 1]  # flags and index; then id and length each
    slots: Annotated[list[Slot], QUEUE_MOST]


@struct
class VirtioBlk:
    """One device."""

    device: u32  # in pci.devices
    common: u64
    notify_base: u64
    notify_multiplier: u32
    notify: u64  # of queue 0
    isr: u64
    config: u64
    features: u64
    size: u32  # of the queue
    seen: u16  # used entries taken in
    ring: Hva


units: Final[Annotated[list[VirtioBlk], MAX_HOST_DISKS]] = array(VirtioBlk, MAX_HOST_DISKS)

RING_PAGES: Final = (sizeof(Ring) + PAGE_SIZE - 1) // PAGE_SIZE


def matches(device: Device) -> bool:
    """Is it such a device?"""
    return device.vendor == VENDOR and device.device in (DEVICE_BLOCK, DEVICE_BLOCK_TRANSITIONAL)


def init(host: HostDisk, device_index: u32) -> str:
    """Make `host`, just added, the disk that this PCI device is; what is wrong with it, empty: nothing. Boot only.

    Its interrupts, MSI-X entry 0 or its pin, are routed by the caller.
    """
    device = pci.devices[device_index]
    unit = units[host.id]
    unit.device = device_index
    unit.common = _region(device, CAP_COMMON_CFG, 0x38)
    unit.isr = _region(device, CAP_ISR_CFG, 1)
    unit.config = _region(device, CAP_DEVICE_CFG, CFG_MAX_DISCARD_SECTORS + 4)
    unit.notify_base = _region(device, CAP_NOTIFY_CFG, 2)
    unit.notify_multiplier = pci.read(device, _capability(device, CAP_NOTIFY_CFG) + 16)
    if unit.common == 0 or unit.isr == 0 or unit.config == 0 or unit.notify_base == 0:
        return "it lacks the modern interface (virtio 1.0), or its registers are out of reach"
    page = frames.alloc_contiguous_zeroed(RING_PAGES)
    if page == 0:
        return "no memory for its queue"
    unit.ring = hva_of(page)
    store_u8(unit.common + DEVICE_STATUS, 0)
    if load_u8(unit.common + DEVICE_STATUS) != 0 or not _start(unit):
        return "it does not accept the features that are needed"
    host.kind = DriverKind.VIRTIO_BLK
    host.unit = host.id
    return _describe(host, unit)


def _capability(device: Device, kind: u32) -> u32:
    """The first capability that tells of a structure in reach; 0: none."""
    offset = pci.next_capability(device, 0, CAP_VENDOR)
    while offset != 0 and (pci.read(device, offset) >> 24 != kind or _place(device, offset) == 0):
        offset = pci.next_capability(device, offset, CAP_VENDOR)
    return offset


def _place(device: Device, offset: u32) -> u64:
    """The address that a capability tells of; 0: out of reach."""
    bar = Bar()
    pci.find_bar(device, pci.read(device, offset + 4) & 0xFF, bar)
    start: u64 = pci.read(device, offset + 8)
    size: u64 = pci.read(device, offset + 12)
    return bar.base + start if not bar.is_io and start + size <= bar.size and paging.is_device(bar.base, bar.size) else 0


def _region(device: Device, kind: u32, length: u32) -> u64:
    """The address of a structure of at least `length` bytes; 0: none in reach."""
    offset = _capability(device, kind)
    return _place(device, offset) if offset != 0 and pci.read(device, offset + 12) >= length else 0


def _start(unit: VirtioBlk) -> bool:
    """From reset to running, an empty queue; False: the device refuses."""
    common = unit.common
    fill_memory(unit.ring, 0, RING_PAGES * PAGE_SIZE)
    unit.seen = 0
    store_u8(common + DEVICE_STATUS, STATUS_ACKNOWLEDGE)
    store_u8(common + DEVICE_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER)
    store_u32(common + DEVICE_FEATURE_SELECT, 0)
    offered: u64 = load_u32(common + DEVICE_FEATURE)
    store_u32(common + DEVICE_FEATURE_SELECT, 1)
    offered |= u64(load_u32(common + DEVICE_FEATURE)) << 32
    unit.features = offered & WANTED
    if unit.features & F_VERSION_1 == 0 or unit.features & F_INDIRECT_DESC == 0:
        return False
    store_u32(common + DRIVER_FEATURE_SELECT, 0)
    store_u32(common + DRIVER_FEATURE, u32(unit.features & 0xFFFF_FFFF))
    store_u32(common + DRIVER_FEATURE_SELECT, 1)
    store_u32(common + DRIVER_FEATURE, u32(unit.features >> 32))
    store_u8(common + DEVICE_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK)
    if load_u8(common + DEVICE_STATUS) & STATUS_FEATURES_OK == 0:
        return False
    return _start_queue(unit)


def _start_queue(unit: VirtioBlk) -> bool:
    common = unit.common
    ring = at(Ring, unit.ring)
    store_u16(common + QUEUE_SELECT, 0)
    unit.size = min(load_u16(common + QUEUE_SIZE), QUEUE_MOST)
    if unit.size == 0:
        return False
    store_u16(common + QUEUE_SIZE, u16(unit.size))
    store_u16(common + QUEUE_MSIX_VECTOR, 0)
    _store_wide(common + QUEUE_DESC, address(ring.descriptors))
    _store_wide(common + QUEUE_DRIVER, unit.ring + offsetof(Ring, "avail_flags"))
    _store_wide(common + QUEUE_DEVICE, address(ring.used))
    unit.notify = unit.notify_base + u64(load_u16(common + QUEUE_NOTIFY_OFF)) * unit.notify_multiplier
    for i in range(unit.size):
        descriptor = ring.descriptors[i]  # for ever: descriptor i is the table of slot i
        descriptor.place = hpa_of(Hva(address(ring.slots[i].table)))
        descriptor.flags = DESC_INDIRECT
    store_u16(common + QUEUE_ENABLE, 1)
    store_u8(common + DEVICE_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK)
    return True


def _store_wide(place: u64, value: u64) -> None:
    store_u32(place, u32(value & 0xFFFF_FFFF))
    store_u32(place + 4, u32(value >> 32))


def _describe(host: HostDisk, unit: VirtioBlk) -> str:
    """Fill in what the block layer wants to know; what speaks against the disk, empty: nothing."""
    if unit.features & F_BLK_SIZE != 0 and load_u32(unit.config + CFG_BLK_SIZE) != 512:
        return "its sectors are not of 512 bytes"
    host.sectors = load_u32(unit.config + CFG_CAPACITY) | u64(load_u32(unit.config + CFG_CAPACITY + 4)) << 32
    host.depth = min(unit.size, TRANSFERS_A_DISK)
    host.most_segments = MAX_SEGMENTS
    if unit.features & F_SEG_MAX != 0:
        host.most_segments = max(min(load_u32(unit.config + CFG_SEG_MAX), MAX_SEGMENTS), 1)
    host.most_sectors = MAX_REQUEST_SECTORS
    host.read_only = unit.features & F_RO != 0
    host.can_flush = unit.features & F_FLUSH != 0
    host.can_discard = unit.features & F_DISCARD != 0
    if host.can_discard:
        host.discard_most = load_u32(unit.config + CFG_MAX_DISCARD_SECTORS)
        host.can_discard = host.discard_most != 0
    return "" if _read_serial(host, unit) else "it does not answer"


def _read_serial(host: HostDisk, unit: VirtioBlk) -> bool:
    """GET_ID, waited for: boot only. False: no answer, and one that comes later would be taken for another request's."""
    ring = at(Ring, unit.ring)
    slot = ring.slots[0]
    _begin(slot, TYPE_GET_ID, 0)
    _put(slot, 1, address(slot.id), ID_BYTES, DESC_WRITE)
    _publish(unit, slot, 0, 2)
    store_u16(unit.notify, 0)
    until: u64 = clock.now() + clock.ticks_of(ID_WAIT_NS)
    while _used_index(unit) == unit.seen and clock.now() < until:
        pause()
    if _used_index(unit) == unit.seen:
        return False
    unit.seen = wrap_u16(unit.seen + 1)
    if load_u8(address(slot) + offsetof(Slot, "status")) == STATUS_OK:
        for i in range(ID_BYTES):
            host.serial[i] = load_u8(address(slot.id) + i)
    return True


def _begin(slot: Slot, type_: u32, sector: u64) -> None:
    """The header, in the first descriptor."""
    slot.type = type_
    slot.sector = sector
    slot.status = STATUS_NOT_YET
    _put(slot, 0, address(slot), 16, 0)


def _put(slot: Slot, index: u32, place: u64, length: u32, flags: u16) -> None:
    descriptor = slot.table[index]
    descriptor.place = place
    descriptor.length = length
    descriptor.flags = u16(flags | DESC_NEXT)
    descriptor.next = u16(index + 1)


def _publish(unit: VirtioBlk, slot: Slot, number: u32, count: u32) -> None:
    """Add the status byte behind `count` descriptors and make the slot available to the device."""
    _put(slot, count, address(slot) + offsetof(Slot, "status"), 1, DESC_WRITE)
    slot.table[count].flags = DESC_WRITE
    ring = at(Ring, unit.ring)
    ring.descriptors[number].length = u32((count + 1) * sizeof(Descriptor))
    ring.avail[ring.avail_index % unit.size] = u16(number)
    compiler_barrier()  # x86 keeps stores in order: the device sees all of it before the index
    store_u16(address(ring) + offsetof(Ring, "avail_index"), wrap_u16(ring.avail_index + 1))


def _used_index(unit: VirtioBlk) -> u16:
    return load_u16(unit.ring + offsetof(Ring, "used") + 2)


def start(host: HostDisk, transfer: Transfer) -> None:
    """Make a transfer available; the device looks at it after notify."""
    unit = units[host.unit]
    slot = at(Ring, unit.ring).slots[transfer.slot]
    sector: u64 = transfer.sector if transfer.segment_count != 0 else 0
    _begin(slot, TYPES[transfer.direction], sector)
    flags: u16 = DESC_WRITE if transfer.direction == Direction.READ else 0
    count: u32 = 1
    for i in range(transfer.segment_count):
        _put(slot, count, transfer.segments[i].hpa, transfer.segments[i].bytes, flags)
        count += 1
    if transfer.direction == Direction.DISCARD:
        slot.discard_sector = transfer.sector
        slot.discard_sectors = u32(transfer.sectors)
        slot.discard_flags = 0
        _put(slot, 1, address(slot) + offsetof(Slot, "discard_sector"), 16, 0)
        count = 2
    _publish(unit, slot, transfer.slot, count)


def notify(host: HostDisk) -> None:
    """Let the device look at its queue."""
    store_u16(units[host.unit].notify, 0)


def reap(host: HostDisk) -> Transfer | None:
    """The next used entry. One that names no transfer in flight, from a broken device, is passed over: the timeout finds the rest."""
    unit = units[host.unit]
    while _used_index(unit) != unit.seen:
        compiler_barrier()
        number: u64 = load_u32(unit.ring + offsetof(Ring, "used") + 4 + 8 * (unit.seen % unit.size))
        unit.seen = wrap_u16(unit.seen + 1)
        if number < TRANSFERS_A_DISK and host.busy >> (number & 63) & 1 != 0:
            transfer = transfer_of(host, number)
            status = load_u8(address(at(Ring, unit.ring).slots[number]) + offsetof(Slot, "status"))
            transfer.outcome = Outcome.OK if status == STATUS_OK else Outcome.IO_ERROR
            return transfer
    return None


def let_interrupt(host: HostDisk, on: bool) -> None:
    """Ask the device for an interrupt at each used entry, or for none. Who asks looks at the queue afterwards."""
    flags = units[host.unit].ring + offsetof(Ring, "avail_flags")
    store_u16(flags, 0 if on else AVAIL_NO_INTERRUPT)
    atomic_or_u64(units[host.unit].ring, 0)  # a full barrier before the queue is read again


def acknowledge(host: HostDisk) -> None:
    """It may have interrupted by its pin: reading ISR takes that back."""
    load_u8(units[host.unit].isr)


def reset(host: HostDisk, begin: bool) -> Status:
    """The device forgets its queue, then gets an empty one. As driver.reset."""
    unit = units[host.unit]
    if begin:
        store_u8(unit.common + DEVICE_STATUS, 0)
    if load_u8(unit.common + DEVICE_STATUS) != 0:
        return Status.WAIT
    return Status.OK if _start(unit) else Status.UNSUPPORTED


def cut_off(host: HostDisk) -> None:
    """It reaches memory no more."""
    pci.cut_off(pci.devices[units[host.unit].device])
