"""`debug disk NAME`: write a pattern over the beginning of a host disk by requests of many sizes, read it back, compare.

Debug images only, on a disk that no VM has. It goes through the block layer as a VM's requests do, from completion to completion.
"""
from __future__ import annotations

from typing import Final

from hypervisor import clock
from hypervisor.addresses import PAGE_SHIFT, PAGE_SIZE, Hpa, Hva, hva_of
from hypervisor.arch_x86.intrinsics import bsf, load_u64, store_u64
from hypervisor.block import host_disk, virtual_disk
from hypervisor.block.model import SECTOR, Completion, Direction, HostDisk, Outcome, Request, VirtualDisk, disks
from hypervisor.console import say
from hypervisor.lang import struct, u32, u64, wrap_u64
from hypervisor.memory import frames
from hypervisor.status import Status

IN_FLIGHT: Final = 24
BUFFER_PAGES: Final = 17
CHUNK: Final = 64  # sectors; a request takes 1 to CHUNK of them
CHUNKS: Final = 512  # 16 MiB at most
KEY: Final[u64] = 0x9E37_79B9_7F4A_7C15


@struct
class DiskTest:
    """One test at a time."""

    disk: VirtualDisk | None  # kept for the next test of the same host disk
    running: bool
    direction: Direction
    chunks: u64
    next: u64  # chunk to be asked for next
    in_flight: u32
    errors: u64
    wrong: u64  # sectors that are not what was written
    buffers: Hpa
    busy: u64  # buffers in use, a bit each
    started: u64


test: Final = DiskTest()


def start(host: HostDisk) -> str:
    """Begin; the result is printed later. What speaks against it, empty: nothing."""
    if test.running:
        return "a test is running"
    if host.read_only or host.sectors < CHUNK:
        return "it cannot be written, or is too small"
    for other in disks.virtual:
        if other is not None and other.host == host and other.vm is not None:
            return "a VM has a disk there"
    last = test.disk
    if last is not None:
        virtual_disk.destroy_disk(last)
    disk = virtual_disk.create(None, host, 0, host.sectors)
    test.disk = disk
    if test.buffers == 0:
        test.buffers = frames.alloc_contiguous(IN_FLIGHT * BUFFER_PAGES)
    if disk is None or test.buffers == 0:
        return "no memory"
    test.running = True
    test.chunks = min(host.sectors // CHUNK, CHUNKS)
    test.errors = 0
    test.wrong = 0
    test.started = clock.now()
    begin(Direction.WRITE)
    return ""


def begin(direction: Direction) -> None:
    """Ask for all chunks once more, in this direction."""
    test.direction = direction
    test.next = 0
    ask()


def ask() -> None:
    """Submit as many as may be in flight; FLUSH is one request."""
    disk = test.disk
    assert disk is not None
    last: u64 = 1 if test.direction == Direction.FLUSH else test.chunks
    while test.next < last and test.in_flight < IN_FLIGHT:
        request = virtual_disk.take(disk)
        assert request is not None
        buffer = bsf(wrap_u64(~test.busy))
        test.busy |= 1 << (buffer & 63)
        test.in_flight += 1
        fill(request, test.next, buffer)
        test.next += 1
        if virtual_disk.submit(disk, request) != Status.OK:
            request.outcome = Outcome.UNSUPPORTED
            take_in(request)
            virtual_disk.give_back(request)


def fill(request: Request, chunk: u64, buffer: u64) -> None:
    """The request for a chunk: its first sectors, in memory that begins within a page."""
    request.completion = Completion.DISK_TEST
    request.direction = test.direction
    request.cookie = buffer
    if test.direction == Direction.FLUSH:
        return
    request.sector = chunk * CHUNK
    request.sectors = 1 + chunk * 37 % CHUNK
    place: u64 = place_of(request)
    left: u64 = request.sectors * SECTOR
    if test.direction == Direction.WRITE:
        for i in range(request.sectors):
            store_u64(hva_of(Hpa(place + i * SECTOR)), pattern(request.sector + i))
    while left != 0:
        size: u64 = min(left, PAGE_SIZE - (place & (PAGE_SIZE - 1)))
        virtual_disk.add_segment(request, Hpa(place), size)
        place += size
        left -= size


def place_of(request: Request) -> u64:
    """Where its memory begins, in its buffer: at any sector of a page."""
    return test.buffers + (request.cookie * BUFFER_PAGES << PAGE_SHIFT) + request.sectors % 8 * SECTOR


def pattern(sector: u64) -> u64:
    """What a sector begins with."""
    return wrap_u64((sector + test.started) * KEY)


def done(request: Request) -> None:
    """A request has ended: look at what was read, and ask for more."""
    take_in(request)
    ask()
    if test.in_flight != 0:
        return
    if test.direction == Direction.WRITE:
        begin(Direction.FLUSH)
    elif test.direction == Direction.FLUSH:
        begin(Direction.READ)
    elif test.direction == Direction.READ:
        finish()


def take_in(request: Request) -> None:
    """Count errors and sectors that are wrong; the buffer is free again."""
    test.in_flight -= 1
    test.busy = test.busy & ~(1 << (request.cookie & 63))
    if request.outcome != Outcome.OK:
        test.errors += 1
    elif request.direction == Direction.READ:
        for i in range(request.sectors):
            if load_u64(Hva(hva_of(Hpa(place_of(request) + i * SECTOR)))) != pattern(request.sector + i):
                test.wrong += 1


def finish() -> None:
    """Print the result and give the disk up."""
    disk = test.disk
    assert disk is not None
    test.running = False
    counts = disk.counts
    host = disk.host
    assert host is not None
    sectors: u64 = counts.sectors[Direction.READ]
    say(f"disk test {host_disk.name(host)}: {counts.requests[0] + counts.requests[1]} requests, {sectors} sectors read back, "
        f"{test.wrong} wrong, {test.errors} errors, {clock.ns_of(clock.now() - test.started) // 1_000_000} ms")
