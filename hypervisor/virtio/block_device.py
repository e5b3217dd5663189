"""Virtio block device (virtio 1.1, 5.2) on a virtual disk of the block layer.

| type | what happens |
|---|---|
| IN, OUT | one to PARTS_MOST requests of the block layer; any layout of whole sectors, within frames cut at multiples of 512 |
| FLUSH | all that was completed before is durable when it completes |
| GET_ID | the disk's name, 20 bytes |
| DISCARD, WRITE_ZEROES | one range |
| anything else | VIRTIO_BLK_S_UNSUPP |

A chain without a header of 16 bytes or without room for the status byte breaks the ring; everything else that is wrong is answered
by an I/O error. Frames of data are pinned by the block layer, the frame of the status byte here.
"""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor.addresses import PAGE_SHIFT, PAGE_SIZE, Gpa, Hfn, Hpa, Hva
from hypervisor.block import virtual_disk
from hypervisor.block.model import (MAX_REQUEST_SECTORS, MAX_SEGMENTS, SECTOR, SECTOR_SHIFT, Completion, Direction, Outcome, Request,
                                    VirtualDisk)
from hypervisor.lang import address, at, copy, sizeof, struct, u8, u32, u64, wrap_u64
from hypervisor.memory import frames, guest_memory, guest_window, ledger, nested
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status
from hypervisor.virtio import cursor, ring
from hypervisor.virtio.cursor import Cursor
from hypervisor.virtio.ring import Chain
from hypervisor.virtio.state import BLOCK_QUEUES, QUEUE_SIZE_MOST, Device, Record

# Request types and status (5.2.6).
T_IN: Final = 0
T_OUT: Final = 1
T_FLUSH: Final = 4
T_GET_ID: Final = 8
T_DISCARD: Final = 11
T_WRITE_ZEROES: Final = 13
S_OK: Final = 0
S_IOERR: Final = 1
S_UNSUPP: Final = 2
S_BUSY: Final = 0x100  # ours: not started, try again
RANGE_UNMAP: Final = 1

# Features (5.2.3).
F_SIZE_MAX: Final[u64] = 1 << 1
F_SEG_MAX: Final[u64] = 1 << 2
F_RO: Final[u64] = 1 << 5
F_BLK_SIZE: Final[u64] = 1 << 6
F_FLUSH: Final[u64] = 1 << 9
F_MQ: Final[u64] = 1 << 12
F_DISCARD: Final[u64] = 1 << 13
F_WRITE_ZEROES: Final[u64] = 1 << 14

SEGMENT_BYTES: Final = 4096  # size_max
SEGMENTS: Final = 32  # seg_max
DISCARD_SECTORS: Final[u64] = 1 << 22
HEADER_BYTES: Final = 16
RANGE_BYTES: Final = 16
ID_BYTES: Final = 20
GIVEN_AT_ONCE: Final = 16  # frames, each below 1,000 instructions
PARTS_MOST: Final = 2  # pieces of a chain of SEGMENTS that all cross a page
BYTES_MOST: Final[u64] = MAX_REQUEST_SECTORS * SECTOR  # of data in one chain


@struct
class Header:
    """struct virtio_blk_req, as fetched."""

    type: u32
    reserved: u32
    sector: u64


@struct
class Range:
    """struct virtio_blk_discard_write_zeroes, as fetched."""

    sector: u64
    sectors: u32
    flags: u32


@struct
class Work:
    """The chain that is being looked at."""

    header: Header
    range: Range
    data: Cursor  # at the first byte of its data
    bytes: u64  # of data
    status: Hva  # of the status byte
    at: Cursor  # on its way
    requests: Annotated[list[Request | None], PARTS_MOST]
    count: u32  # of them


work: Final = Work()


@struct
class Zeros:
    """The frame that WRITE_ZEROES writes."""

    hpa: Hpa


zeros: Final = Zeros()


def init() -> Status:
    """Boot only; NO_MEMORY."""
    zeros.hpa = frames.alloc_contiguous_zeroed(1)
    return Status.OK if zeros.hpa != 0 else Status.NO_MEMORY


def features(disk: VirtualDisk) -> u64:
    """What is offered for a disk."""
    offered: u64 = F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_MQ
    if disk.read_only:
        return offered | F_RO
    return offered | F_WRITE_ZEROES | (F_DISCARD if disk.can_discard else 0)


def read_configuration(device: Device, offset: u32) -> u32:
    """struct virtio_blk_config (5.2.4): the dword at an aligned offset."""
    disk = at(VirtualDisk, device.disk)
    match offset:
        case 0x00:
            return u32(disk.sectors & 0xFFFF_FFFF)
        case 0x04:
            return u32(disk.sectors >> 32)
        case 0x08:
            return SEGMENT_BYTES
        case 0x0C:
            return SEGMENTS
        case 0x14:
            return SECTOR
        case 0x20:  # num_queues in the upper half
            return device.registers.queue_count << 16
        case 0x24:
            return u32(DISCARD_SECTORS) if disk.can_discard else 0
        case 0x28:
            return 1  # max_discard_seg
        case 0x2C:
            return 8  # discard_sector_alignment
        case 0x30:
            return MAX_REQUEST_SECTORS
        case 0x34:
            return 1  # max_write_zeroes_seg
        case _:
            return 0


def record_of(device: Device, index: u32, head: u32) -> Record:
    """The record of a chain."""
    assert head < QUEUE_SIZE_MOST
    return at(Record, Hva(device.records + (u64(index) * QUEUE_SIZE_MOST + head) * sizeof(Record)))


def handle(vm: Vm, vcpu: Vcpu | None, device: Device, index: u32, chain: Chain) -> Status:
    """Start one chain. OK: it was taken, and is answered now or later; WAIT, NO_MEMORY, BUSY: nothing has happened; BAD_ARGUMENT."""
    if chain.read_bytes < HEADER_BYTES or chain.write_bytes == 0 or chain.head >= QUEUE_SIZE_MOST:
        return Status.BAD_ARGUMENT
    record = record_of(device, index, chain.head)
    if record.busy:
        return Status.BAD_ARGUMENT  # offered again while it is in flight
    cursor.begin(work.at, chain, 0, 0, HEADER_BYTES)
    cursor.read(vm, work.at, chain, Hva(address(work.header)))
    find_data(chain)
    status = back(vm, vcpu, chain)
    if status != Status.OK:
        return status
    if not ledger.pin(Hfn(work.status >> PAGE_SHIFT)):
        return Status.BUSY
    record.status = work.status
    record.result = S_OK
    record.written = 1
    record.parts = 0
    start(vm, at(VirtualDisk, device.disk), record, chain, u64(device.slot) << 32 | u64(index) << 16 | chain.head)
    if record.result == S_BUSY:
        ledger.unpin(Hfn(work.status >> PAGE_SHIFT))
        return Status.BUSY
    record.busy = True
    device.in_flight += 1
    ring.advance(device.registers.queues[index])
    if record.parts == 0:
        finish(device, index, chain.head)
    return Status.OK


def find_data(chain: Chain) -> None:
    """Where the data begin and how long they are: behind the header, or before the status byte."""
    if work.header.type in (T_IN, T_GET_ID):
        work.bytes = chain.write_bytes - 1
        cursor.begin(work.data, chain, chain.readable, 0, work.bytes)
    else:
        work.bytes = chain.read_bytes - HEADER_BYTES
        cursor.begin(work.data, chain, 0, HEADER_BYTES, work.bytes)


def back(vm: Vm, vcpu: Vcpu | None, chain: Chain) -> Status:
    """See that data (unless they are too long anyway) and status byte are backed by frames. NO_MEMORY; WAIT, after GIVEN_AT_ONCE
    frames too: call again."""
    before: u64 = vm.private_frames
    last = chain.segments[chain.count - 1]
    end = Gpa(last.gpa + last.length - 1)
    status = cursor.back_page(vm, vcpu, end)
    if status == Status.OK and work.bytes <= BYTES_MOST:
        copy(work.at, work.data)
        while status == Status.OK and cursor.step(work.at, chain):
            if max(vm.private_frames, before) - before >= GIVEN_AT_ONCE:
                return Status.WAIT
            status = cursor.back_page(vm, vcpu, work.at.gpa)
    if status == Status.OK:
        work.status = guest_memory.host_address(vm, end)
    return status


def start(vm: Vm, disk: VirtualDisk, record: Record, chain: Chain, cookie: u64) -> None:
    """By the header's type: record.parts requests were submitted, or record.result is the answer, S_BUSY if it cannot be now."""
    work.count = 0
    match work.header.type:
        case 0 | 1:  # T_IN, T_OUT
            transfer(vm, disk, record, chain)
        case 4:  # T_FLUSH
            take_one(disk, record, Direction.FLUSH)
        case 8:  # T_GET_ID
            give_id(vm, disk, record, chain)
        case 11 | 13:  # T_DISCARD, T_WRITE_ZEROES
            with_range(vm, disk, record, chain)
        case _:
            record.result = S_UNSUPP
    submit(disk, record, cookie)


def take_one(disk: VirtualDisk, record: Record, direction: Direction) -> Request | None:
    """One more request for this chain; None: there is none now, or the chain needs too many."""
    if work.count == PARTS_MOST:
        record.result = S_IOERR
        return None
    request = virtual_disk.take(disk)
    if request is None:
        record.result = S_BUSY
        return None
    request.direction = direction
    work.requests[work.count] = request
    work.count += 1
    return request


def transfer(vm: Vm, disk: VirtualDisk, record: Record, chain: Chain) -> None:
    """IN and OUT: cut the data into requests."""
    direction = Direction.READ if work.header.type == T_IN else Direction.WRITE
    if work.bytes == 0 or work.bytes > BYTES_MOST or work.bytes & (SECTOR - 1) != 0:
        record.result = S_IOERR
        return
    request: Request | None = None
    room: u64 = 0  # bytes that the request can still take
    sector: u64 = work.header.sector
    copy(work.at, work.data)
    while cursor.step(work.at, chain):
        if work.at.length & (SECTOR - 1) != 0:
            record.result = S_IOERR  # the block layer moves whole sectors
            return
        if request is None or work.at.length > room or request.segment_count == MAX_SEGMENTS:
            request = take_one(disk, record, direction)
            if request is None:
                return
            request.sector = sector
            room = MAX_REQUEST_SECTORS << SECTOR_SHIFT
        added = virtual_disk.add_segment(request, nested.lookup(vm, work.at.gpa), work.at.length)
        assert added, "it was looked whether there is room"
        room -= work.at.length
        request.sectors += work.at.length >> SECTOR_SHIFT
        sector = wrap_u64(sector + (work.at.length >> SECTOR_SHIFT))
    if direction == Direction.READ:
        record.written = u32(work.bytes + 1)


def with_range(vm: Vm, disk: VirtualDisk, record: Record, chain: Chain) -> None:
    """DISCARD and WRITE_ZEROES."""
    if work.bytes != RANGE_BYTES:
        record.result = S_IOERR
        return
    cursor.read(vm, work.data, chain, Hva(address(work.range)))
    zeroes = work.header.type == T_WRITE_ZEROES
    if work.range.flags != 0 and not (zeroes and work.range.flags == RANGE_UNMAP):
        record.result = S_UNSUPP
        return
    if zeroes and work.range.sectors > MAX_REQUEST_SECTORS or work.range.sectors == 0:
        record.result = S_IOERR
        return
    request = take_one(disk, record, Direction.WRITE if zeroes else Direction.DISCARD)
    if request is None:
        return
    request.sector = work.range.sector
    request.sectors = work.range.sectors
    left: u64 = u64(work.range.sectors) << SECTOR_SHIFT if zeroes else 0
    while left != 0:
        part: u64 = min(left, PAGE_SIZE)
        virtual_disk.add_segment(request, zeros.hpa, part)
        left -= part


def give_id(vm: Vm, disk: VirtualDisk, record: Record, chain: Chain) -> None:
    """GET_ID: the name, at most ID_BYTES; shorter ones end with a zero."""
    if work.bytes < ID_BYTES or work.bytes > BYTES_MOST:  # beyond that nothing is backed
        record.result = S_IOERR
        return
    done: u64 = 0
    while done < ID_BYTES and cursor.step(work.data, chain):
        part: u64 = min(work.data.length, ID_BYTES - done)
        guest_window.copy(guest_memory.host_address(vm, work.data.gpa), Hva(address(disk.name) + done), part)
        done += part
    record.written = ID_BYTES + 1


def submit(disk: VirtualDisk, record: Record, cookie: u64) -> None:
    """Hand over the requests that were filled; if one cannot be, none behind it is."""
    for index in range(work.count):
        request = work.requests[index]
        assert request is not None
        request.completion = Completion.VIRTIO_BLK
        request.cookie = cookie
        status = Status.BUSY if record.result != S_OK else virtual_disk.submit(disk, request)
        if status == Status.OK:
            record.parts += 1
            continue
        virtual_disk.give_back(request)
        if record.result == S_OK:
            record.result = S_BUSY if status == Status.BUSY and record.parts == 0 else S_IOERR


def ended(device: Device, cookie: u64, outcome: Outcome) -> None:
    """One of the requests of a chain has ended."""
    index: u32 = u32(cookie >> 16 & 0xFFFF)
    head: u32 = u32(cookie & 0xFFFF)
    record = record_of(device, index, head)
    assert record.busy and record.parts != 0
    record.parts -= 1
    if outcome != Outcome.OK:
        record.result = S_UNSUPP if outcome == Outcome.UNSUPPORTED else S_IOERR
    if record.parts == 0:
        finish(device, index, head)


def finish(device: Device, index: u32, head: u32) -> None:
    """Answer a chain."""
    record = record_of(device, index, head)
    guest_window.store_u8(record.status, u8(record.result))
    release(device, record)
    written: u32 = record.written if record.result == S_OK else 1
    ring.give_back(device.registers.queues[index], device.places[index], head, written)
    device.requests += 1


def release(device: Device, record: Record) -> None:
    """The chain is in flight no more."""
    ledger.unpin(Hfn(record.status >> PAGE_SHIFT))
    record.busy = False
    device.in_flight -= 1


def cancel(device: Device) -> bool:
    """Forget all chains; nobody is told of them. True: nothing moves to or from the guest's memory any more."""
    disk = at(VirtualDisk, device.disk)
    if device.in_flight != 0:
        virtual_disk.cancel_disk(disk)
        for index in range(BLOCK_QUEUES):
            for head in range(QUEUE_SIZE_MOST):
                record = record_of(device, index, head)
                if record.busy:
                    release(device, record)
    return disk.outstanding == 0
