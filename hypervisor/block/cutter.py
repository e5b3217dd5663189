"""From requests to transfers: cut at what the host disk can do at once, and neighbours put together."""
from __future__ import annotations

from hypervisor.addresses import PAGE_MASK, Hpa
from hypervisor.block.model import (MERGED_MOST, SECTOR_SHIFT, Direction, HostDisk, Request, Segment, Transfer, VirtualDisk)
from hypervisor.lang import u32, u64


def fill(host: HostDisk, disk: VirtualDisk, transfer: Transfer, most: u64) -> None:
    """Let an empty transfer do the next of what is queued for `disk`, at most `most` sectors of its first request."""
    head = disk.queue
    assert head is not None
    transfer.direction = head.direction
    transfer.sector = disk.first + head.sector + head.started
    whole = head.started == 0
    if head.direction == Direction.FLUSH:
        head.all_started = True
    elif head.direction == Direction.DISCARD:
        transfer.sectors = min(most, host.discard_most)
        head.started += transfer.sectors
    else:
        _add_part(host, transfer, head, most)
    if head.direction != Direction.FLUSH:
        head.all_started = head.started == head.sectors
    if not whole:
        disk.counts.split += 1
    serve(transfer, head)
    if head.all_started:
        unlink_head(disk)
        if whole and not head.alone and disk.overlay.root == 0 and transfer.segment_count != 0:
            _merge(host, disk, transfer, head)


def _merge(host: HostDisk, disk: VirtualDisk, transfer: Transfer, last: Request) -> None:
    """Add the requests behind it that go on where it ends and fit as a whole."""
    end: u64 = last.sector + last.sectors
    while transfer.request_count < MERGED_MOST:
        head = disk.queue
        if head is None or head.direction != transfer.direction or head.sector != end or head.started != 0 or head.alone:
            return
        if not _fits(host, transfer, head):
            return
        _add_part(host, transfer, head, head.sectors)
        assert head.started == head.sectors
        head.all_started = True
        end += head.sectors
        disk.counts.merged += 1
        serve(transfer, head)
        unlink_head(disk)


def _fits(host: HostDisk, transfer: Transfer, request: Request) -> bool:
    """Can the transfer take all of the request too?"""
    if transfer.sectors + request.sectors > host.most_sectors:
        return False
    if transfer.segment_count + request.segment_count > min(host.most_segments, len(transfer.segments)):
        return False
    if host.whole_pages:
        last = transfer.segments[transfer.segment_count - 1]
        end: u64 = last.hpa + last.bytes
        for i in range(request.segment_count):
            segment = request.segments[i]
            if (end | segment.hpa) & PAGE_MASK != 0:
                return False
            end = segment.hpa + segment.bytes
    return True


def _add_part(host: HostDisk, transfer: Transfer, request: Request, most: u64) -> None:
    """Append what fits of the request's memory, at most `most` sectors of it."""
    room: u64 = min(most, host.most_sectors - transfer.sectors) << SECTOR_SHIFT
    while room != 0 and request.segment_at < request.segment_count:
        segment = request.segments[request.segment_at]
        length: u64 = min(room, segment.bytes - request.segment_used)
        if not _append(host, transfer, Hpa(segment.hpa + request.segment_used), length):
            return
        room -= length
        transfer.sectors += length >> SECTOR_SHIFT
        advance(request, segment, length)


def advance(request: Request, segment: Segment, length: u64) -> None:
    """The next `length` bytes of a request, of its current segment, have been handed on."""
    request.started += length >> SECTOR_SHIFT
    request.segment_used += u32(length)
    if request.segment_used == segment.bytes:
        request.segment_at += 1
        request.segment_used = 0


def _append(host: HostDisk, transfer: Transfer, hpa: Hpa, length: u64) -> bool:
    """Add memory to a transfer; False: it has no place for it."""
    count = transfer.segment_count
    if count != 0:
        last = transfer.segments[count - 1]
        end: u64 = last.hpa + last.bytes
        if end == hpa:
            last.bytes += u32(length)
            return True
        if count == min(host.most_segments, len(transfer.segments)) or host.whole_pages and (end | hpa) & PAGE_MASK != 0:
            return False
    transfer.segments[count].hpa = hpa
    transfer.segments[count].bytes = u32(length)
    transfer.segment_count += 1
    return True


def serve(transfer: Transfer, request: Request) -> None:
    """The request is in flight as long as the transfer is."""
    transfer.requests[transfer.request_count] = request
    transfer.request_count += 1
    request.parts += 1


def unlink_head(disk: VirtualDisk) -> None:
    """The oldest queued request has been started as a whole."""
    head = disk.queue
    assert head is not None
    disk.queue = head.next
    head.next = None
    if disk.queue is None:
        disk.queue_last = None


def start_again(request: Request) -> None:
    """A transfer that it shared has failed: back to the front of the queue, to travel alone."""
    disk = request.disk
    assert disk is not None and request.parts == 0 and request.all_started
    request.all_started = False
    request.alone = True
    request.started = 0
    request.segment_at = 0
    request.segment_used = 0
    request.next = disk.queue
    disk.queue = request
    if request.next is None:
        disk.queue_last = request


def give_up_rest(request: Request) -> None:
    """A part has failed: nothing more of it is started."""
    disk = request.disk
    assert disk is not None
    if request.all_started:
        return
    request.all_started = True
    before: Request | None = None
    queued = disk.queue
    while queued is not None and queued != request:
        before = queued
        queued = queued.next
    assert queued is not None
    if before is None:
        disk.queue = queued.next
    else:
        before.next = queued.next
    if queued.next is None:
        disk.queue_last = before
    queued.next = None
