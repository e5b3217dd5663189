"""Pages that guests may have are user pages of the hypervisor's address space: SMAP lets none of its code touch them but in a window.

A window lasts from STAC to CLAC and is RFLAGS.AC, so it is a CPU's own, costs two instructions, and leaves TLBs alone. User pages are
free frames, guests' RAM, and these page tables themselves; supervisor pages are the frames that the hypervisor has taken for itself
(`take`, `give`, which frames.py calls). In a window all guests' pages can be reached, and the tables too.

No other CPU is asked to flush when a frame changes sides. One that holds old rights which forbid too much takes the fault that they
cause for what it is, drops them and tries again (`drop_stale`). Rights that allow too much, of a frame that was the hypervisor's, last there
until the TLB drops them: SMAP guards against our own mistakes, and may miss one that long.

A trap inside a window runs with it open, and IRET gives it back. A CPU without SMAP keeps the large pages of paging.py, and its windows
are NOPs. CR4.PKE stays off, or protection keys, whose register is the guest's, would bar the hypervisor from user pages.
"""
from typing import Final

from hypervisor import boot_info
from hypervisor.addresses import LARGE_PAGE_SIZE, PAGE_SHIFT, PAGE_SIZE, Hfn
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.intrinsics import (clac, invlpg, load_u32, load_u64, read_cr0, read_cr4, stac, store_u8, store_u64, write_cr0,
                                            write_cr4)
from hypervisor.arch_x86.paging import (CR0_WP, CR4_PGE, ENTRIES, GIB, LARGE_PAGE_ADDRESS, PTE_ADDRESS, PTE_LARGE, PTE_PRESENT, PTE_USER,
                                        PTE_WRITE, READ_WRITE, Pool, paging, pool)
from hypervisor.lang import address, link_address, sizeof, struct, u32, u64
from hypervisor.memory import ledger
from hypervisor.memory.ledger import NO_VM, Kind, Use
from hypervisor.status import Status

TABLE: Final[u64] = PTE_PRESENT | PTE_WRITE | PTE_USER
NOP_TO_WINDOW: Final = 0x01  # 0F 1F CB and CA are NOPs, 0F 01 CB is STAC, 0F 01 CA is CLAC


@struct
class GuestPages:
    """tables: how many frames the tables are; 0: guests' memory is not kept apart. taken: as many are there so far, at boot."""

    tables: u64
    taken: u64


pages: Final = GuestPages()


def init() -> Status:
    """Map memory by 4 KiB pages, and make free frames user pages. NO_MEMORY: not enough frames for the tables. Boot only."""
    if not features.smap:
        return Status.OK
    write_cr0(read_cr0() & ~u64(CR0_WP))  # code and upper tables are read-only
    for site in range(link_address("__smap_start"), link_address("__smap_end"), 4):
        store_u8(load_u32(site) + 1, NOP_TO_WINDOW)
    write_cr0(read_cr0())  # serializes: what was patched is what is executed
    stac()
    status = _split_all()
    clac()
    write_cr0(read_cr0() | CR0_WP)
    write_cr4(read_cr4() & ~u64(CR4_PGE))  # drops the large pages' translations, which are global
    write_cr4(read_cr4() | CR4_PGE)
    return status


def take(hfn: Hfn) -> None:
    """The frame, free so far, is the hypervisor's own from now on."""
    if pages.tables != 0:
        _set(hfn, READ_WRITE)


def give(hfn: Hfn) -> None:
    """The hypervisor's frame is free."""
    if pages.tables != 0:
        _set(hfn, READ_WRITE | PTE_USER)


def is_guests(place: u64) -> bool:
    """Whether an address lies in a page that guests may have."""
    return _rights(place) & PTE_USER != 0


def drop_stale(place: u64) -> bool:
    """Whether an access that faulted is allowed by now: this CPU had the rights of a time when the frame was not the hypervisor's."""
    if _rights(place) != PTE_PRESENT | PTE_WRITE:
        return False
    invlpg(place)
    return True


def _rights(place: u64) -> u64:
    """PTE_PRESENT, PTE_WRITE and PTE_USER of the page of an address; 0: it is none of those that are kept apart."""
    if pages.tables == 0 or place < paging.image_end or place >= paging.end:
        return 0
    if not boot_info.has_usable(place & LARGE_PAGE_ADDRESS, LARGE_PAGE_SIZE):
        return 0
    stac()
    entry = load_u64(_slot(place >> PAGE_SHIFT, 0))
    clac()
    return entry & (PTE_PRESENT | PTE_WRITE | PTE_USER)


def _set(hfn: Hfn, rights: u64) -> None:
    place: u64 = hfn << PAGE_SHIFT
    stac()
    store_u64(_slot(hfn, 0), place | rights)
    clac()
    invlpg(place)


def _slot(hfn: u64, level: u32) -> u64:
    """Address of the entry that maps a frame, at level 0, or leads there. Within a window."""
    slot = address(pool) + 8 * (hfn >> 27 & ENTRIES - 1)
    at: u32 = 3
    while at > level:
        at -= 1
        slot = (load_u64(slot) & PTE_ADDRESS) + 8 * (hfn >> (9 * at & 63) & ENTRIES - 1)
    return slot


def _split_all() -> Status:
    """All memory behind the image."""
    for place in range(paging.image_end, paging.end, LARGE_PAGE_SIZE):
        if boot_info.has_usable(place, LARGE_PAGE_SIZE) and not _split(place):
            return Status.NO_MEMORY
    for place in range(paging.image_end, paging.end, LARGE_PAGE_SIZE):
        if boot_info.has_usable(place, LARGE_PAGE_SIZE):
            for level in range(1, 3):  # the tables themselves
                table: u64 = load_u64(_slot(place >> PAGE_SHIFT, u32(level))) & PTE_ADDRESS
                if table < address(pool) or table >= address(pool) + sizeof(Pool):
                    store_u64(_slot(table >> PAGE_SHIFT, 0), table | READ_WRITE | PTE_USER)
    pages.tables = pages.taken
    return Status.OK


def _split(place: u64) -> bool:
    """2 MiB of memory; False: no frame."""
    slot = _slot(place >> PAGE_SHIFT, 2)
    if load_u64(slot) & PTE_LARGE != 0:
        directory = _take_table()
        if directory == 0:
            return False
        first: u64 = place & ~(GIB - 1)
        for i in range(ENTRIES):
            store_u64(directory + 8 * u64(i), first + u64(i) * LARGE_PAGE_SIZE | READ_WRITE | PTE_LARGE)
        store_u64(slot, directory | TABLE)
    table = _take_table()
    if table == 0:
        return False
    for i in range(ENTRIES):
        page: u64 = place + u64(i) * PAGE_SIZE
        free = ledger.kind_of(Hfn(page >> PAGE_SHIFT)) == Kind.FREE
        store_u64(table + 8 * u64(i), page | READ_WRITE | (PTE_USER if free else 0))
    store_u64(_slot(place >> PAGE_SHIFT, 1), table | TABLE)
    return True


def _take_table() -> u64:
    """A frame for a table; 0: there is none."""
    pages.taken += 1
    return ledger.claim_first(Kind.HYPERVISOR, NO_VM, Use.OTHER) << PAGE_SHIFT
