"""A VM's disks: made at boot, used by its device models. All functions are called from the run loop or below it.

    request = take(disk)            None: all are in flight; completion.room(disk) is called when there is one again
    request.direction = ...         direction, sector, sectors, completion, cookie, cookie_2
    add_segment(request, hpa, n)    READ, WRITE: host memory in order
    submit(disk, request)           OK: completion.done(request) is called later, from the run loop, exactly once

The frames of a submitted request are pinned in the ledger until it is done, also when its VM ends before.
"""
from __future__ import annotations

from typing import Final

from hypervisor import clock
from hypervisor.addresses import PAGE_SHIFT, PAGE_SIZE, Hfn, Hpa, Hva, hpa_of, hva_of
from hypervisor.block import overlay, overlay_opening
from hypervisor.block.model import (DISKS_A_VM, MAX_REQUEST_SECTORS, MAX_SEGMENTS, MAX_VIRTUAL_DISKS,
                                    REQUESTS_A_DISK, SECTOR, SECTOR_SHIFT, Completion, Direction, HostDisk, Outcome, Request,
                                    VirtualDisk, disks)
from hypervisor.cpu import owe
from hypervisor.lang import address, at, sizeof, text_at, u32, u64
from hypervisor.memory import frames, ledger
from hypervisor.memory.ledger import Kind
from hypervisor.model import WORK_DISK, Vm
from hypervisor.status import Status

DISK_PAGES: Final = (sizeof(VirtualDisk) + PAGE_SIZE - 1) // PAGE_SIZE
REQUEST_PAGES: Final = (REQUESTS_A_DISK * sizeof(Request) + PAGE_SIZE - 1) // PAGE_SIZE


def name(disk: VirtualDisk) -> str:
    """What the VM's configuration calls it."""
    return text_at(address(disk.name))


def of(vm: Vm, index: u32) -> VirtualDisk | None:
    """The VM's disk number `index` (0 .. DISKS_A_VM - 1), or None."""
    for disk in disks.virtual:
        if disk is not None and disk.vm == vm and disk.index == index:
            return disk
    return None


def create(vm: Vm | None, host: HostDisk, first: u64, sectors: u64) -> VirtualDisk | None:
    """A disk of `vm` (None: the hypervisor's own) that is [first, first + sectors) of `host`. The caller has checked the range.

    None: no memory, no place in the table, or the VM has DISKS_A_VM already. Its frames are charged to the VM.
    """
    index: u32 = 0
    place: u32 = MAX_VIRTUAL_DISKS
    for i in range(MAX_VIRTUAL_DISKS):
        other = disks.virtual[i]
        if other is None:
            place = min(place, u32(i))
        elif vm is not None and other.vm == vm:
            index += 1
    if place == MAX_VIRTUAL_DISKS or index >= DISKS_A_VM:
        return None
    page = frames.alloc_contiguous_zeroed(DISK_PAGES + REQUEST_PAGES)
    if page == 0:
        return None
    disk = at(VirtualDisk, hva_of(page))
    disk.id = place
    disk.index = index
    disk.vm = vm
    disk.host = host
    disk.first = first
    disk.sectors = sectors
    disk.read_only = host.read_only
    disk.can_discard = host.can_discard
    disk.requests = Hva(hva_of(page) + DISK_PAGES * PAGE_SIZE)
    for i in range(REQUESTS_A_DISK):
        request = at(Request, Hva(disk.requests + i * sizeof(Request)))
        request.next = disk.free
        disk.free = request
    disk.flow = disk
    for i in range(MAX_VIRTUAL_DISKS):
        other = disks.virtual[i]
        if vm is not None and other is not None and other.vm == vm and other.host == host:
            disk.flow = other.flow
    if vm is not None:
        vm.overhead_frames += DISK_PAGES + REQUEST_PAGES
    disks.virtual[place] = disk
    return disk


def writes_host(disk: VirtualDisk) -> bool:
    """Can what the VM writes reach the host disk?"""
    return not disk.read_only and disk.overlay.most_frames == 0


def take(disk: VirtualDisk) -> Request | None:
    """A request to fill, all fields zero; None: all are in flight, and completion.room will be called."""
    request = disk.free
    if request is None:
        disk.starved = True
        return None
    disk.free = request.next
    request.next = None
    request.taken = True
    request.disk = disk
    return request


def give_back(request: Request) -> None:
    """A request that was taken and not submitted, or that is done (completion.py does that)."""
    disk = request.disk
    assert disk is not None and request.taken and not request.submitted
    request.segment_count = 0
    request.direction = Direction.READ
    request.sector = 0
    request.sectors = 0
    request.completion = Completion.NOBODY
    request.cookie = 0
    request.cookie_2 = 0
    request.outcome = Outcome.OK
    request.all_started = False
    request.started = 0
    request.segment_at = 0
    request.segment_used = 0
    request.alone = False
    request.taken = False
    request.next = disk.free
    disk.free = request


def add_segment(request: Request, hpa: Hpa, length: u64) -> bool:
    """Append memory to a request, `length` bytes that do not leave the frame; False: too many pieces."""
    assert length != 0 and (hpa & (PAGE_SIZE - 1)) + length <= PAGE_SIZE
    count = request.segment_count
    if count == MAX_SEGMENTS:
        return False
    segment = request.segments[count]
    segment.hpa = hpa
    segment.bytes = u32(length)
    request.segment_count += 1
    return True


def submit(disk: VirtualDisk, request: Request) -> Status:
    """Hand a filled request over. Every field may come from a guest but segments' addresses, which are its frames.

    OK: completion.done will be called. Else the request is still the caller's: BAD_ARGUMENT (outside the disk, too long,
    segments that are not whole sectors or do not add up), UNSUPPORTED (a write to a read-only disk, a discard where there is
    none), BUSY (its frames are pinned too often: completion.room will be called).
    """
    assert request.taken and not request.submitted and request.disk == disk
    status = _problem(disk, request)
    if status == Status.OK and not _pin(request):
        disk.starved = True
        return Status.BUSY
    if status != Status.OK:
        disk.counts.refused += 1
        return status
    request.submitted = True
    request.submitted_at = clock.now()
    last = disk.queue_last
    if last is None:
        disk.queue = request
    else:
        last.next = request
    disk.queue_last = request
    disk.outstanding += 1
    owe(WORK_DISK)
    return Status.OK


def _problem(disk: VirtualDisk, request: Request) -> Status:
    """What is wrong with a request."""
    if request.direction != Direction.READ and disk.read_only:
        return Status.OK if request.direction == Direction.FLUSH else Status.UNSUPPORTED
    if request.direction == Direction.FLUSH:
        return Status.OK
    if request.sectors == 0 or request.sector >= disk.sectors or request.sectors > disk.sectors - request.sector:
        return Status.BAD_ARGUMENT
    if request.direction == Direction.DISCARD:
        return Status.OK if disk.can_discard else Status.UNSUPPORTED
    if request.sectors > MAX_REQUEST_SECTORS:
        return Status.BAD_ARGUMENT
    total: u64 = 0
    for i in range(request.segment_count):
        length: u64 = request.segments[i].bytes
        if length & (SECTOR - 1) != 0 or request.segments[i].hpa & 3 != 0:
            return Status.BAD_ARGUMENT
        total += length
    return Status.OK if total == request.sectors << SECTOR_SHIFT else Status.BAD_ARGUMENT


def _pin(request: Request) -> bool:
    """Pin the guest's frames, one after the other once; all or none."""
    for i in range(request.segment_count):
        hfn = _first_use(request, i)
        if hfn != 0 and not ledger.pin(hfn):
            for k in range(i):
                done = _first_use(request, k)
                if done != 0:
                    ledger.unpin(done)
            return False
    return True


def unpin(request: Request) -> None:
    """The memory of a request is no longer in flight."""
    for i in range(request.segment_count):
        hfn = _first_use(request, i)
        if hfn != 0:
            ledger.unpin(hfn)


def _first_use(request: Request, index: u64) -> Hfn:
    """The frame of a segment, 0 if it is the hypervisor's (zeros are written from one) or the segment before lies in it too."""
    hfn = Hfn(request.segments[index].hpa >> PAGE_SHIFT)
    disk = request.disk
    assert disk is not None
    if disk.vm is None or ledger.kind_of(hfn) == Kind.HYPERVISOR or index != 0 and request.segments[index - 1].hpa >> PAGE_SHIFT == hfn:
        return Hfn(0)
    return hfn


def cancel(vm: Vm) -> None:
    """The VM, or its device model, is reset or gone: nobody is told of what is still outstanding on its disks.

    What has not been started is dropped; `quiet` says when the rest has left the machine's disks. At most
    DISKS_A_VM * REQUESTS_A_DISK steps.
    """
    for disk in disks.virtual:
        if disk is not None and disk.vm == vm:
            cancel_disk(disk)


def cancel_disk(disk: VirtualDisk) -> None:
    """As cancel, for one disk."""
    disk.starved = False
    for i in range(REQUESTS_A_DISK):
        request = at(Request, Hva(disk.requests + i * sizeof(Request)))
        if request.submitted:
            request.completion = Completion.NOBODY
    queued = disk.queue
    disk.queue = None
    disk.queue_last = None
    while queued is not None:
        following = queued.next
        queued.next = None
        if queued.parts == 0:
            unpin(queued)
            queued.submitted = False
            disk.outstanding -= 1
            give_back(queued)
        else:
            queued.all_started = True  # done when these have ended
        queued = following


def quiet(vm: Vm) -> bool:
    """Has everything that the VM submitted come back?"""
    for disk in disks.virtual:
        if disk is not None and disk.vm == vm and disk.outstanding != 0:
            return False
    return True


def forget_some(vm: Vm, all_of_it: bool) -> bool:
    """Drop a bounded part of what the VM's overlays hold, of those that `undo` named or of all; True: nothing of it is left. The VM
    is quiet."""
    for disk in disks.virtual:
        if disk is not None and disk.vm == vm and (all_of_it or disk.overlay.forget):
            if not overlay.forget_some(disk):
                return False
            disk.overlay.forget = False
            if disk.overlay.store.map_sectors != 0:
                overlay_opening.start_over(disk)
    return True


def destroy(vm: Vm) -> None:
    """Give back the disks of a VM that is gone and quiet, after forget_some."""
    for i in range(MAX_VIRTUAL_DISKS):
        disk = disks.virtual[i]
        if disk is not None and disk.vm == vm:
            overlay.drop(disk)
            destroy_disk(disk)
            vm.overhead_frames -= DISK_PAGES + REQUEST_PAGES


def destroy_disk(disk: VirtualDisk) -> None:
    """Give back a disk that is quiet."""
    assert disk.outstanding == 0
    _leave_flow(disk)
    disks.virtual[disk.id] = None
    frames.free_contiguous(hpa_of(Hva(address(disk))), DISK_PAGES + REQUEST_PAGES)


def _leave_flow(leaving: VirtualDisk) -> None:
    """Others of the VM on the same host disk are now led by another; all go together, so any will do."""
    for disk in disks.virtual:
        if disk is not None and disk.flow == leaving:
            disk.flow = disk
