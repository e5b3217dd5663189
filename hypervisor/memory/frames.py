"""Physical frames: taking and giving back, in constant time. Contents of a frame taken are arbitrary unless said otherwise.

Guests' RAM comes from a pool bounded by the bundle's memory_limit, and leaves the hypervisor HYPERVISOR_RESERVE frames.
"""
from __future__ import annotations

from typing import Final

from hypervisor import boot_info
from hypervisor.addresses import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, Gfn, Hfn, Hpa, hva_of
from hypervisor.arch_x86 import guest_pages
from hypervisor.arch_x86.intrinsics import fill_memory
from hypervisor.arch_x86.paging import paging
from hypervisor.boot_info import info
from hypervisor.lang import link_address, struct, u32, u64
from hypervisor.memory import guest_window, ledger
from hypervisor.memory.ledger import ENTRY_BYTES, NO_VM, Kind, Use
from hypervisor.model import Vm
from hypervisor.status import Status

LOW_END: Final = 0x10_0000  # the first MiB stays with firmware and real-mode structures
HYPERVISOR_RESERVE: Final = 128  # frames that guests' RAM never takes: nested tables, vCPUs
SETTLE_CHUNK: Final = 256


@struct
class Pool:
    """Frames for guests' RAM."""

    limit: u64  # frames that may be PRIVATE at one time
    search_from: u64  # where alloc_contiguous looks next, downwards


pool: Final = Pool()


def init() -> Status:
    """Find all usable frames and start the ledger; boot_info and the hypervisor's final page tables stand. Boot only.

    NO_MEMORY: no usable range has room for the ledger, or for the tables of guest_pages.py. The pool for guests is all there is until set_limit.
    """
    limit: u64 = boot_info.usable_end() >> PAGE_SHIFT
    place = _room_for(limit * ENTRY_BYTES)
    if place == 0:
        return Status.NO_MEMORY
    fill_memory(hva_of(place), 0, limit * ENTRY_BYTES)
    ledger.start(hva_of(place), limit)
    _add(0, max_u64(link_address("__image_end"), paging.image_end), Kind.HYPERVISOR)  # its last large page stays whole
    _add(info.bundle_hpa, info.bundle_hpa + info.bundle_size, Kind.HYPERVISOR)
    _add(place, place + limit * ENTRY_BYTES, Kind.HYPERVISOR)
    _add(LOW_END, limit << PAGE_SHIFT, Kind.FREE)
    pool.search_from = limit
    set_limit(0)
    return guest_pages.init()


def _add(start: u64, end: u64, kind: Kind) -> None:
    """Enter the usable frames of [start, end), highest first so that the lowest are handed out first; what is entered stays.

    FREE takes frames that are usable throughout; HYPERVISOR every frame that it touches.
    """
    for index in range(info.range_count):
        entry = info.ranges[info.range_count - 1 - index]
        if entry.usable:
            first: u64 = max_u64(start, entry.base + PAGE_MASK) >> PAGE_SHIFT
            last: u64 = min_u64(end + PAGE_MASK, entry.base + entry.size) >> PAGE_SHIFT
            while last > first:
                last -= 1
                ledger.add(Hfn(last), kind)


def _room_for(length: u64) -> Hpa:
    """The lowest page-aligned place of `length` bytes in usable memory, behind the image and beside the bundle; 0: none."""
    best: u64 = 0
    bundle_end: u64 = page_up(info.bundle_hpa + info.bundle_size)
    for index in range(info.range_count):
        entry = info.ranges[index]
        if entry.usable:
            place: u64 = page_up(max_u64(entry.base, link_address("__image_end")))
            if place < bundle_end and info.bundle_hpa < place + length:
                place = bundle_end
            if place + length <= entry.base + entry.size and (best == 0 or place < best):
                best = place
    return Hpa(best)


def page_up(place: u64) -> u64:
    """The next multiple of 4 KiB."""
    return (place + PAGE_MASK) & ~u64(PAGE_MASK)


def total() -> u64:
    """Frames of usable memory, hypervisor's included."""
    return ledger.book.usable


def free_count() -> u64:
    """Frames that nobody uses."""
    return ledger.book.counts[Kind.FREE]


def available() -> u64:
    """Frames that guests' RAM may still take."""
    used: u64 = ledger.book.counts[Kind.PRIVATE]
    free: u64 = ledger.book.counts[Kind.FREE] + ledger.book.counts[Kind.QUARANTINED]
    if used >= pool.limit or free <= HYPERVISOR_RESERVE:
        return 0
    return min_u64(pool.limit - used, free - HYPERVISOR_RESERVE)


def min_u64(a: u64, b: u64) -> u64:
    """The smaller of two."""
    return a if a < b else b


def max_u64(a: u64, b: u64) -> u64:
    """The larger of two."""
    return a if a > b else b


def set_limit(limit_bytes: u64) -> None:
    """Bound what guests' RAM may take together (the bundle's memory_limit); 0: all there is."""
    most: u64 = ledger.book.usable
    pool.limit = most if limit_bytes == 0 else min_u64(limit_bytes >> PAGE_SHIFT, most)


def alloc() -> Hpa:
    """A frame for the hypervisor itself; 0 if there is none."""
    return alloc_for(NO_VM, Use.OTHER)


def alloc_for(vm_id: u32, use: Use) -> Hpa:
    """A hypervisor frame that serves one VM; 0 if there is none."""
    hfn = ledger.claim_first(Kind.HYPERVISOR, vm_id, u64(use))
    if hfn == 0:
        ledger.settle(SETTLE_CHUNK)
        hfn = ledger.claim_first(Kind.HYPERVISOR, vm_id, u64(use))
    if hfn != 0:
        guest_pages.take(hfn)
    return Hpa(hfn << PAGE_SHIFT)


def alloc_zeroed() -> Hpa:
    """A frame for the hypervisor itself, all bytes zero; 0 if there is none."""
    hpa = alloc()
    if hpa != 0:
        zero(hpa)
    return hpa


def alloc_private(vm: Vm, gfn: Gfn) -> Hpa:
    """A zeroed frame as RAM of `vm` at `gfn`, not yet mapped; 0 if there is none. The caller has asked available."""
    hfn = ledger.claim_first(Kind.PRIVATE, vm.id, gfn)
    if hfn == 0:
        ledger.settle(SETTLE_CHUNK)
        hfn = ledger.claim_first(Kind.PRIVATE, vm.id, gfn)
        if hfn == 0:
            return Hpa(0)
    hpa = Hpa(hfn << PAGE_SHIFT)
    guest_window.fill(hva_of(hpa), 0, PAGE_SIZE)
    return hpa


def alloc_shared() -> Hpa:
    """A frame to be mapped read-only in VMs, contents arbitrary, no references yet; 0 if there is none."""
    return Hpa(ledger.claim_first(Kind.SHARED, NO_VM, 0) << PAGE_SHIFT)


def free(hpa: Hpa) -> None:
    """Give back a hypervisor frame. Its contents stay until somebody takes it; guests only ever get zeroed frames."""
    ledger.release(Hfn(hpa >> PAGE_SHIFT))
    guest_pages.give(Hfn(hpa >> PAGE_SHIFT))


def zero(hpa: Hpa) -> None:
    """Clear one frame of the hypervisor's (512 REP STOSQ iterations)."""
    fill_memory(hva_of(hpa), 0, PAGE_SIZE)


def alloc_contiguous(count: u64) -> Hpa:
    """`count` frames in a row for the hypervisor, contents arbitrary; 0 if there is no such row. Slow: creation of VMs."""
    run: u64 = 0
    at_frame = pool.search_from
    wrapped = False
    if count == 0:
        return Hpa(0)
    while True:
        if at_frame == 0:
            if wrapped:
                return Hpa(0)
            wrapped = True
            at_frame = ledger.book.limit
            run = 0
        at_frame -= 1
        run = run + 1 if ledger.entry_of(Hfn(at_frame)).kind == Kind.FREE else 0
        if run == count:
            break
    for hfn in range(at_frame, at_frame + count):
        ledger.claim(Hfn(hfn), Kind.HYPERVISOR, NO_VM, u64(Use.OTHER))
        guest_pages.take(Hfn(hfn))
    pool.search_from = at_frame
    return Hpa(at_frame << PAGE_SHIFT)


def alloc_contiguous_zeroed(count: u64) -> Hpa:
    """As alloc_contiguous, all bytes zero."""
    hpa = alloc_contiguous(count)
    if hpa != 0:
        fill_memory(hva_of(hpa), 0, count << PAGE_SHIFT)
    return hpa


def free_contiguous(hpa: Hpa, count: u64) -> None:
    """Give back what alloc_contiguous gave."""
    for hfn in range(hpa >> PAGE_SHIFT, (hpa >> PAGE_SHIFT) + count):
        ledger.release(Hfn(hfn))
        guest_pages.give(Hfn(hfn))
    if (hpa >> PAGE_SHIFT) + count > pool.search_from:
        pool.search_from = (hpa >> PAGE_SHIFT) + count
