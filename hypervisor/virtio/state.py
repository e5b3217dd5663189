"""State of a VM's virtio devices. Fields only; transport.py, ring.py and the device files change them.

`Registers` and what it holds is plain and versioned: all that a saved VM needs. Host addresses stand beside it, in `Place`.
"""
from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hypervisor.addresses import Hva
from hypervisor.devices.msix import Msix
from hypervisor.devices.pci_host import SLOTS, PciHost
from hypervisor.lang import struct, u32, u64

VERSION: Final = 2
QUEUES: Final = 8  # of one device
QUEUE_SIZE_MOST: Final = 64
BLOCK_QUEUES: Final = 4
CONSOLE_QUEUES: Final = 2
CONSOLE_RECEIVE: Final = 0  # what was typed; the other one is what is shown
PART_PAGES: Final = 2  # no part of a ring of QUEUE_SIZE_MOST spans more pages
NO_VECTOR: Final = 0xFFFF  # VIRTIO_MSI_NO_VECTOR
DRIVER_OK: Final = 4  # of the status (2.1)
NEEDS_RESET: Final = 64


class DeviceKind(IntEnum):
    """Virtio device type (virtio 1.1, 5)."""

    NONE = 0
    BLOCK = 2
    CONSOLE = 3
    ENTROPY = 4


@struct
class Queue:
    """One split virtqueue as the driver set it up, and how far both sides are."""

    size: u32
    enabled: bool
    vector: u32  # MSI-X vector, NO_VECTOR
    descriptors: u64  # guest-physical addresses
    available: u64
    used: u64
    next_available: u32  # index of the next chain to take, 0..65535
    next_used: u32
    signalled: u32  # next_used when an interrupt was last considered
    in_flight: u32  # chains taken and not given back


@struct
class Registers:
    """What the driver reads and writes, and the queues."""

    version: u32
    kind: DeviceKind
    offered: u64  # features
    accepted: u64
    offered_select: u32
    accepted_select: u32
    status: u32
    generation: u32  # of the device's configuration
    config_vector: u32
    queue_select: u32
    queue_count: u32
    interrupt_status: u32  # ISR
    shown: u64  # CONSOLE: bytes of the chain that is being shown which have been
    queues: Annotated[list[Queue], QUEUES]
    msix: Msix


@struct
class Part:
    """Where one part of a ring stands in the host: it may cross a page. Its frames are pinned in the ledger."""

    offset: u64  # of its first byte in the first page
    pages: Annotated[list[Hva], PART_PAGES]


@struct
class Place:
    """Host addresses of one queue's parts; all zero while it is not enabled."""

    descriptors: Part
    available: Part
    used: Part


@struct
class Record:
    """A chain of a block device that is in flight, by queue and head."""

    busy: bool
    parts: u32  # block layer requests that have not ended
    result: u32  # VIRTIO_BLK_S_*
    written: u32  # bytes into the chain, status included
    status: Hva  # where the status byte goes; its frame is pinned


@struct
class Device:
    """One device. Lives in frames of its own."""

    registers: Registers
    places: Annotated[list[Place], QUEUES]
    disk: Hva  # BLOCK: the VirtualDisk,
    records: Hva  # and BLOCK_QUEUES * QUEUE_SIZE_MOST of Record
    in_flight: u32  # records that are busy
    resetting: bool  # the driver has asked for a reset, and requests are still in flight
    stalled: u32  # queues, a bit each, that wait for memory or for room in the block layer
    slot: u32  # device number on bus 0
    irq: u32
    complaints: u32  # broken rings said so far
    requests: u64  # statistics: chains given back,
    notifications: u64  # exits by the driver's notify,
    interrupts: u64  # interrupts raised


@struct
class Devices:
    """A VM's PCI bus and what is on it, by device number."""

    host: PciHost
    devices: Annotated[list[Device | None], SLOTS]
    hungry: bool  # some queue waits for memory: whichever vCPU runs next serves it (service.feed)
