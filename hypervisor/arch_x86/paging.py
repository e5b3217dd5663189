"""The hypervisor's own address space: everything at its physical address, nothing both writable and executable.

| memory | rights |
|---|---|
| text | read, execute |
| rodata, page tables, GDT, IDT | read |
| page 0, guard pages below the stacks | none |
| usable memory, and what the firmware keeps beside it | read, write |
| the rest below 4 GiB: devices | read, write, uncached |

The image and the first 2 MiB are mapped by 4 KiB pages, the rest by the largest there are, until guest_pages.py splits them.
Intel SDM vol. 3A 4.5.
"""
from typing import Annotated, Final

from hypervisor import boot_info
from hypervisor.addresses import LARGE_PAGE_SIZE, PAGE_SIZE
from hypervisor.arch_x86 import idt, stacks
from hypervisor.arch_x86.acpi import acpi
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.intrinsics import rdmsr, read_cr0, read_cr4, write_cr0, write_cr3, write_cr4, wrmsr, xsetbv
from hypervisor.arch_x86.lapic import APIC_BASE_ADDRESS, IA32_APIC_BASE
from hypervisor.lang import address, at, link_address, sizeof, struct, u64
from hypervisor.status import Status

PTE_PRESENT: Final[u64] = 1 << 0
PTE_WRITE: Final[u64] = 1 << 1
PTE_USER: Final[u64] = 1 << 2
PTE_WRITE_THROUGH: Final[u64] = 1 << 3
PTE_CACHE_DISABLE: Final[u64] = 1 << 4
PTE_ACCESSED: Final[u64] = 1 << 5
PTE_DIRTY: Final[u64] = 1 << 6
PTE_LARGE: Final[u64] = 1 << 7
PTE_GLOBAL: Final[u64] = 1 << 8
PTE_NX: Final[u64] = 1 << 63
PTE_ADDRESS: Final[u64] = 0x000F_FFFF_FFFF_F000

LARGE_PAGE_ADDRESS: Final[u64] = 0x000F_FFFF_FFE0_0000

READ: Final[u64] = PTE_PRESENT | PTE_ACCESSED | PTE_DIRTY | PTE_GLOBAL | PTE_NX
READ_WRITE: Final[u64] = READ | PTE_WRITE
DEVICE: Final[u64] = READ_WRITE | PTE_CACHE_DISABLE | PTE_WRITE_THROUGH
READ_EXECUTE: Final[u64] = PTE_PRESENT | PTE_ACCESSED | PTE_DIRTY | PTE_GLOBAL
NOTHING: Final[u64] = 0

IA32_EFER: Final = 0xC000_0080
EFER_NXE: Final = 0x800
CR0_WP: Final = 0x1_0000
CR4_MCE: Final = 0x40
CR4_PGE: Final = 0x80
CR4_UMIP: Final = 0x800
CR4_OSXSAVE: Final = 0x4_0000
CR4_SMEP: Final = 0x10_0000
CR4_SMAP: Final = 0x20_0000
CR4_PKE: Final = 0x40_0000
XCR0_X87: Final = 1

FOUR_GIB: Final[u64] = 0x1_0000_0000
GIB: Final[u64] = 0x4000_0000
POOL_PAGES: Final = 16
ENTRIES: Final = 512


@struct(align=4096)
class Table:
    """One page table of any level."""

    entries: Annotated[list[u64], ENTRIES]


@struct(align=4096)
class Pool:
    """The tables, [0] is the root; read-only once loaded."""

    tables: Annotated[list[Table], POOL_PAGES]


@struct
class Paging:
    """How far things got."""

    used: u64  # tables taken from the pool
    image_end: u64  # below: 4 KiB pages
    end: u64  # mapped memory ends here


pool: Final = Pool()
paging: Final = Paging()


def init() -> Status:
    """Build the tables, switch the protections on and load them. NO_MEMORY: the machine has more memory than tables."""
    paging.used = 1
    paging.image_end = (link_address("__image_end") + LARGE_PAGE_SIZE - 1) & ~u64(LARGE_PAGE_SIZE - 1)
    paging.end = FOUR_GIB
    if boot_info.usable_end() > FOUR_GIB:
        paging.end = (boot_info.usable_end() + LARGE_PAGE_SIZE - 1) & ~u64(LARGE_PAGE_SIZE - 1)
    place: u64 = 0
    while place < paging.end:
        size = _page_size(place)
        if not _map(place, size):
            return Status.NO_MEMORY
        place += size
    load()
    return Status.OK


def load() -> None:
    """Use the tables on this CPU, with its protections on."""
    wrmsr(IA32_EFER, rdmsr(IA32_EFER) | EFER_NXE)
    write_cr0(read_cr0() | CR0_WP)
    cr4 = read_cr4() & ~u64(CR4_PKE) | CR4_MCE | protections()  # else a guest's PKRU would bar us from user pages (SDM vol. 3A 4.6.2)
    if features.pge:
        cr4 |= CR4_PGE
    if features.xsave:
        cr4 |= CR4_OSXSAVE
    write_cr3(address(pool))
    write_cr4(cr4)
    if features.xsave:
        xsetbv(0, XCR0_X87)


def protections() -> u64:
    """Those of CR4 that the CPU has."""
    bits: u64 = 0
    if features.umip:
        bits |= CR4_UMIP
    if features.smep:
        bits |= CR4_SMEP
    if features.smap:
        bits |= CR4_SMAP
    return bits


def _page_size(place: u64) -> u64:
    """The largest page that may begin here: 1 GiB pages never hold the image or memory-mapped devices."""
    if place < paging.image_end:
        return PAGE_SIZE
    in_devices = FOUR_GIB - GIB <= place and place < FOUR_GIB
    if features.page_1gb and place & (GIB - 1) == 0 and paging.end - place >= GIB and not in_devices:
        return GIB
    return LARGE_PAGE_SIZE


def _map(place: u64, size: u64) -> bool:
    """Map one page; False: out of tables."""
    table = at(Table, address(pool))
    shift: u64 = 39
    last: u64 = 12 if size == PAGE_SIZE else (21 if size == LARGE_PAGE_SIZE else 30)
    while shift > last:
        index = place >> (shift & 63) & (ENTRIES - 1)
        if table.entries[index] == 0:
            if paging.used == POOL_PAGES:
                return False
            table.entries[index] = address(pool.tables[paging.used]) | PTE_PRESENT | PTE_WRITE | PTE_USER  # the page has the say
            paging.used += 1
        table = at(Table, table.entries[index] & PTE_ADDRESS)
        shift -= 9
    rights = _rights_of_page(place) if size == PAGE_SIZE else _rights_of_large(place, size)
    large: u64 = 0 if size == PAGE_SIZE else PTE_LARGE
    table.entries[place >> (last & 63) & (ENTRIES - 1)] = (place | rights | large) if rights != 0 else 0
    return True


def _rights_of_large(place: u64, size: u64) -> u64:
    apic = rdmsr(IA32_APIC_BASE) & APIC_BASE_ADDRESS
    if place == apic & LARGE_PAGE_ADDRESS or place == acpi.ioapic_base & LARGE_PAGE_ADDRESS:
        return DEVICE
    return READ_WRITE if boot_info.has_usable(place, size) else DEVICE


def is_device(place: u64, size: u64) -> bool:
    """Is all of [place, place + size) mapped uncached, as registers of a device must be? Pages of 2 MiB that hold no memory are."""
    if size == 0 or place < paging.image_end or place >= FOUR_GIB or size > FOUR_GIB - place:
        return False
    first = place & LARGE_PAGE_ADDRESS
    return not boot_info.has_usable(first, place + size - first)


def _rights_of_page(place: u64) -> u64:
    if place == 0 or stacks.is_guard(place):
        return NOTHING
    if _is_in(place, link_address("__text_start"), link_address("__text_end")):
        return READ_EXECUTE
    if _is_in(place, link_address("__rodata_start"), link_address("__rodata_end")):
        return READ
    if _is_in(place, address(pool), address(pool) + sizeof(Pool)):
        return READ
    if stacks.is_tables(place):
        return READ
    if _is_in(place, address(idt.tables), address(idt.tables) + sizeof(idt.Tables)):
        return READ
    return READ_WRITE


def _is_in(page: u64, start: u64, end: u64) -> bool:
    """Whether the page lies in [start, end)."""
    return start <= page and page < end
