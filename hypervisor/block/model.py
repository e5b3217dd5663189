"""The objects of the block layer: HostDisk, Transfer, VirtualDisk, Request. Fields only; who changes them is said at each.

A guest's device model takes a Request from its VirtualDisk, fills it and submits it (virtual_disk.py). scheduler.py cuts
requests into Transfers that a HostDisk's driver can carry out, drivers/driver.py starts them; when all parts of a request
are done, completion.py tells who submitted it. Sectors are of 512 bytes everywhere.
"""
from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hypervisor.addresses import Hpa, Hva
from hypervisor.lang import struct, u8, u32, u64
from hypervisor.model import Timer, Vm

SECTOR: Final = 512
SECTOR_SHIFT: Final = 9
MAX_SEGMENTS: Final = 33  # 128 KiB that begin within a frame
MAX_REQUEST_SECTORS: Final = 256  # of a READ or WRITE
REQUESTS_A_DISK: Final = 64  # in flight at one time, for each virtual disk
MERGED_MOST: Final = 8  # requests that one transfer serves
MAX_HOST_DISKS: Final = 8
MAX_VIRTUAL_DISKS: Final = 64
DISKS_A_VM: Final = 4
DISK_NAME_BYTES: Final = 24
TRANSFERS_A_DISK: Final = 64
MAX_PARTITIONS: Final = 32


class Direction(IntEnum):
    """What a request asks for."""

    READ = 0
    WRITE = 1
    FLUSH = 2  # all writes completed before it was submitted shall survive a loss of power
    DISCARD = 3  # contents do not matter any more


class Outcome(IntEnum):
    """How a request ended."""

    OK = 0
    IO_ERROR = 1
    UNSUPPORTED = 2


class Completion(IntEnum):
    """Whom completion.py tells."""

    NOBODY = 0
    VIRTIO_BLK = 1
    DISK_TEST = 2
    KEPT = 3  # nobody is told: the owner looks whether `submitted` is False again, and gives the request back


class StoreState(IntEnum):
    """How far an overlay on the host disk is (overlay_store.py)."""

    OPENING = 0  # what an earlier run left is looked for
    READING = 1  # its map is read
    RENEWING = 2  # it is made empty
    OPEN = 3
    FAILED = 4  # damaged, or a transfer of its own has failed: nothing of it is believed or promised


@struct
class Segment:
    """Physically contiguous memory, within one frame if it is a guest's."""

    hpa: Hpa
    bytes: u32  # a multiple of SECTOR


@struct
class Request:
    """One request of a VM. Who took it fills the first part; the rest is the block layer's."""

    direction: Direction
    sector: u64  # on the virtual disk
    sectors: u64  # 0 for FLUSH
    segment_count: u32  # READ, WRITE: together `sectors` sectors
    completion: Completion
    cookie: u64  # two numbers for who is told
    cookie_2: u64
    # block layer
    outcome: Outcome
    disk: VirtualDisk | None
    next: Request | None  # free list, or the disk's queue
    taken: bool  # not in the free list
    alone: bool  # is not merged: it travelled with others and one of them failed
    submitted: bool
    all_started: bool  # and not in the queue any more
    started: u64  # sectors handed to transfers so far
    segment_at: u32  # where the next transfer begins
    segment_used: u32  # bytes of that segment that earlier transfers took
    parts: u32  # transfers in flight
    submitted_at: u64  # host TSC
    segments: Annotated[list[Segment], MAX_SEGMENTS]


@struct
class Limit:
    """At most `rate` units a second; 0: no limit (limits.py)."""

    rate: u64
    due: u64  # host TSC at which all units taken so far have been earned


@struct
class DiskCounts:
    """Statistics of one virtual disk since its VM was made."""

    requests: Annotated[list[u64], 4]  # completed, by Direction
    sectors: Annotated[list[u64], 4]
    errors: u64
    refused: u64  # by submit
    merged: u64  # requests that travelled with another
    split: u64  # transfers beyond the first of a request
    ticks: u64  # from submission to completion, all requests together


@struct
class VirtualDisk:
    """A range of a host disk as one VM sees it. Lives in frames of its own, its requests in others."""

    id: u32
    index: u32  # among the VM's disks
    vm: Vm | None
    host: HostDisk | None
    name: Annotated[list[u8], DISK_NAME_BYTES]
    first: u64  # sector of the host disk
    sectors: u64
    read_only: bool
    can_discard: bool
    overlay: Overlay
    # requests
    requests: Hva  # REQUESTS_A_DISK of them
    free: Request | None
    queue: Request | None  # submitted and not wholly started, oldest first
    queue_last: Request | None
    starved: bool  # a request could not be taken or submitted: completion.room is owed
    outstanding: u32  # submitted and not completed
    # fairness (scheduler.py)
    flow: VirtualDisk | None  # the first disk of the same VM on the same host disk: its tag counts for both
    tag: u64  # virtual time at which this flow's next request may start
    served: u64  # HostDisk.started when it was last served: disks of one flow take turns
    requests_limit: Limit
    bytes_limit: Limit
    counts: DiskCounts


@struct
class Store:
    """Where an overlay keeps its blocks if that is not memory: a range of the host disk. overlay_store.py owns it."""

    first: u64  # sector of the host disk
    sectors: u64
    map_sectors: u64  # of one of the two copies of its map; 0: blocks are kept in memory
    state: StoreState
    at: u64  # OPENING to RENEWING: the next step
    kept: bool  # what an earlier run left is to be used
    buffers: Annotated[list[Hpa], 2]
    stepping: bool  # a transfer of its own is in flight
    writing: u32  # transfers of data to it that are in flight
    next_slot: u64
    dirty: u64  # map sectors that differ from what was written
    dirty_from: u64  # none below this one
    epoch: u64  # what was written in another one does not count
    sequence: u64  # of the header
    known: u64  # map sectors that the header vouches for
    reached: u64  # map sectors that were written
    header_due: bool


@struct
class Overlay:
    """Sectors that were written since the base was made; root 0: none. overlay.py owns it."""

    root: Hpa  # table of tables by 4 KiB block
    most_frames: u64  # blocks
    frames: u64  # blocks held
    table_frames: u64
    forget: bool  # the operator's `undo`: drop all when the VM starts again
    store: Store


class DriverKind(IntEnum):
    """Which driver a host disk has."""

    NONE = 0
    RAM = 1
    VIRTIO_BLK = 2
    ATA = 3
    NVME = 4


class DiskState(IntEnum):
    """Health of a host disk."""

    OK = 0
    RESETTING = 1  # after a transfer that did not end in time; nothing is started
    FAILED = 2  # it did not come back: every request fails at once


class TableState(IntEnum):
    """The partition table of a host disk (gpt.py)."""

    NONE = 0
    GOOD = 1
    COPY = 2  # the first is damaged, the copy at the end is not


@struct
class Partition:
    """One entry, by number from 1."""

    first: u64
    sectors: u64  # 0: not in use


@struct
class Transfer:
    """What a driver carries out at once: consecutive sectors of one host disk for one or several requests."""

    direction: Direction
    sector: u64  # on the host disk
    sectors: u64
    segment_count: u32
    request_count: u32  # 0: the hypervisor's own, at boot
    slot: u32  # its place among the host disk's transfers
    outcome: Outcome
    tries: u32
    own: bool  # for an overlay's map; its only request waits for that
    deadline: u64  # host TSC
    segments: Annotated[list[Segment], MAX_SEGMENTS]
    requests: Annotated[list[Request | None], MERGED_MOST]


@struct
class HostDisk:
    """A disk of the machine. drivers/ fill the first part."""

    id: u32
    kind: DriverKind
    unit: u32  # the driver's own number of it
    name: Annotated[list[u8], DISK_NAME_BYTES]  # by place: virtio0, ata1, nvme0
    serial: Annotated[list[u8], DISK_NAME_BYTES]  # what the disk says of itself, blanks cut; may be empty
    model: Annotated[list[u8], DISK_NAME_BYTES]
    sectors: u64
    depth: u32  # transfers in flight at most
    most_segments: u32
    most_sectors: u32
    whole_pages: bool  # segments but the first begin, and but the last end, at a frame's border (NVMe's PRP lists)
    read_only: bool
    can_flush: bool
    can_discard: bool
    discard_most: u64  # sectors of one transfer
    shares: bool  # another disk's transfer may be in its way (ATA: two drives on a channel)
    immediate: bool  # a transfer has ended once it is started; nothing interrupts
    table: TableState
    partitions: Annotated[list[Partition], MAX_PARTITIONS]
    state: DiskState
    polled: bool  # its interrupts are off: transfers that have ended are looked for in time (polling.py)
    ended_at: u64  # host TSC at which one was last seen to have ended, or was first waited for
    gap: u64  # TSC ticks between two ends, lately
    # scheduler.py
    transfers: Hva  # TRANSFERS_A_DISK of them
    busy: u64  # transfers in flight, a bit each
    in_flight: u32
    virtual_time: u64
    again: u64  # transfers that are to be started again after a reset, a bit each
    watch_at: u64  # host TSC at which deadlines are looked at next
    reset_until: u64  # host TSC at which a reset that goes on has failed
    # statistics
    started: u64
    errors: u64
    timeouts: u64
    resets: u64


@struct
class Disks:
    """All of them."""

    host: Annotated[list[HostDisk], MAX_HOST_DISKS]
    host_count: u32
    next_host: u32  # to be served first in the next turn
    virtual: Annotated[list[VirtualDisk | None], MAX_VIRTUAL_DISKS]
    timer: Timer  # throttled queues, timeouts, polling


disks: Final = Disks()
