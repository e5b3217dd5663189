"""Physical frames: taking and giving back, in constant time. Contents of a frame taken are arbitrary unless said otherwise.

Guests' RAM comes from a pool bounded by the bundle's memory_limit, and leaves the hypervisor HYPERVISOR_RESERVE frames.
"""
from __future__ import annotations

from typing import Final

from hypervisor.addresses import PAGE_SHIFT, PAGE_SIZE, Gfn, Hfn, Hpa, hva_of
from hypervisor.arch_x86.intrinsics import fill_memory
from hypervisor.lang import struct, u32, u64
from hypervisor.memory import ledger
from hypervisor.memory.ledger import NO_VM, Kind, Use
from hypervisor.model import Vm

HYPERVISOR_RESERVE: Final = 128  # frames that guests' RAM never takes: nested tables, vCPUs
SETTLE_CHUNK: Final = 256


@struct
class Pool:
    """Frames for guests' RAM."""

    limit: u64  # frames that may be PRIVATE at one time
    search_from: u64  # where alloc_contiguous looks next, downwards


pool: Final = Pool()


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
    return Hpa(hfn << PAGE_SHIFT)


def alloc_zeroed() -> Hpa:
    """A frame for the hypervisor itself, all bytes zero; 0 if there is none."""
    hpa = alloc()
    if hpa != 0:
        zero(hpa)
    return hpa


def alloc_private(vm: Vm, gfn: Gfn) -> Hpa:
    """A zeroed frame as RAM of `vm` at `gfn`, not yet mapped; 0 if guests' pool is empty."""
    if available() == 0:
        return Hpa(0)
    hfn = ledger.claim_first(Kind.PRIVATE, vm.id, gfn)
    if hfn == 0:
        ledger.settle(SETTLE_CHUNK)
        hfn = ledger.claim_first(Kind.PRIVATE, vm.id, gfn)
    hpa = Hpa(hfn << PAGE_SHIFT)
    if hfn != 0:
        zero(hpa)
    return hpa


def free(hpa: Hpa) -> None:
    """Give back a hypervisor frame. Its contents stay until somebody takes it; guests only ever get zeroed frames."""
    ledger.release(Hfn(hpa >> PAGE_SHIFT))


def zero(hpa: Hpa) -> None:
    """Clear one frame (512 REP STOSQ iterations)."""
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
    if (hpa >> PAGE_SHIFT) + count > pool.search_from:
        pool.search_from = (hpa >> PAGE_SHIFT) + count
