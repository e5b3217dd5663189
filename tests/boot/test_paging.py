"""hypervisor/arch_x86/paging.py: what the tables say of every page, by a walk of them as the CPU would make."""
from collections.abc import Iterator

import pytest

from hypervisor import boot_info
from hypervisor.arch_x86 import acpi, idt, paging, stacks
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.lapic import IA32_APIC_BASE
from hypervisor.lang import Fault, address, clear, read_memory, set_link_address
from hypervisor.model import MAX_CPUS
from hypervisor.status import Status

TEXT, RODATA, DATA, STACKS, END = 0x10_0000, 0x11_0000, 0x11_8000, 0x12_0000, 0x15_0000
GIB = 1 << 30


@pytest.fixture(autouse=True)
def _machine() -> Iterator[None]:
    machine.reset()
    machine.msrs = {paging.IA32_EFER: 0x500, IA32_APIC_BASE: 0xFEE0_0900}
    machine.registers = {"cr0": 0x8000_0011, "cr4": 0x620}
    for name, value in (("__text_start", TEXT), ("__text_end", RODATA), ("__rodata_start", RODATA), ("__rodata_end", DATA),
                        ("__stacks_start", STACKS), ("__image_end", END)):
        set_link_address(name, value)
    for of in (paging.pool, paging.paging, boot_info.info, features):
        clear(of)
    acpi.acpi.ioapic_base = acpi.DEFAULT_IOAPIC
    yield
    machine.reset()


def memory(*ranges: tuple[int, int]) -> None:
    """Usable memory."""
    for index, (base, size) in enumerate(ranges):
        entry = boot_info.info.ranges[index]
        entry.base, entry.size, entry.usable = base, size, True
    boot_info.info.range_count = len(ranges)


def leaf(place: int) -> tuple[int, int]:
    """The entry that maps an address and the size of its page; (0, 0): not mapped."""
    table = machine.registers["cr3"]
    for shift in (39, 30, 21, 12):
        entry = read_memory(table + 8 * (place >> shift & 511), 8)
        if not entry & paging.PTE_PRESENT:
            return 0, 0
        if shift == 12 or entry & paging.PTE_LARGE:
            size = 1 << shift
            assert entry & paging.PTE_ADDRESS & -size == place & -size, f"{place:#x} is mapped elsewhere"
            return entry, size
        table = entry & paging.PTE_ADDRESS
    raise AssertionError


def rights(place: int) -> str:
    """r, w, x as `ls` shows them; empty where nothing is mapped."""
    entry, _ = leaf(place)
    if entry == 0:
        return ""
    return "r" + ("w" if entry & paging.PTE_WRITE else "-") + ("-" if entry & paging.PTE_NX else "x")


@pytest.mark.parametrize("gigabyte_pages", [False, True])
def test_each_page_has_the_rights_of_what_lies_in_it(gigabyte_pages: bool) -> None:
    features.page_1gb = gigabyte_pages
    memory((0, 0x9_F000), (0x10_0000, 0x7FF0_0000), (1 << 32, 3 * GIB))
    assert paging.init() == Status.OK
    guards = [stacks.guard_page(cpu, index) for cpu in range(MAX_CPUS) for index in range(stacks.STACKS)]
    tables = [stacks.area(cpu) for cpu in range(MAX_CPUS)]
    for page in range(0, 4 << 20, 4096):
        if page == 0 or page in guards:
            wanted = ""
        elif TEXT <= page < RODATA:
            wanted = "r-x"
        elif RODATA <= page < DATA or page in tables:
            wanted = "r--"
        else:
            wanted = "rw-"
        assert rights(page) == wanted, hex(page)
    for place in (GIB, 2 * GIB, 4 * GIB - 4096, 4 * GIB, 7 * GIB - 4096):
        assert rights(place) == "rw-"
    assert rights(7 * GIB) == ""
    assert leaf(5 * GIB)[1] == (GIB if gigabyte_pages else 2 << 20)


def test_tables_that_the_cpu_trusts_are_read_only_wherever_they_lie() -> None:
    for of, size in ((paging.pool, 4096 * paging.POOL_PAGES), (idt.tables, 4096)):
        for page in range(address(of), address(of) + size, 4096):
            assert paging._rights_of_page(page) == paging.READ


def test_interrupt_controllers_are_not_cached_and_memory_is() -> None:
    features.page_1gb = True
    memory((0x10_0000, GIB))
    assert paging.init() == Status.OK
    for device in (0xFEE0_0000, 0xFEC0_0000):
        entry, size = leaf(device)
        assert entry & paging.PTE_CACHE_DISABLE and size == 2 << 20
    assert not leaf(GIB)[0] & paging.PTE_CACHE_DISABLE and leaf(GIB)[1] == GIB


def test_protections_are_switched_on_as_far_as_the_cpu_has_them() -> None:
    memory((0x10_0000, GIB))
    assert paging.init() == Status.OK
    assert machine.msrs[paging.IA32_EFER] & paging.EFER_NXE and machine.registers["cr0"] & paging.CR0_WP
    assert not machine.registers["cr4"] & (paging.CR4_SMEP | paging.CR4_SMAP | paging.CR4_UMIP)
    features.smep = features.smap = features.umip = True
    clear(paging.pool)
    assert paging.init() == Status.OK
    assert machine.registers["cr4"] & (paging.CR4_SMEP | paging.CR4_SMAP | paging.CR4_UMIP) == 0x30_0800


def test_more_memory_than_tables_is_told() -> None:
    memory((0x10_0000, GIB), (1 << 32, 64 * GIB))
    assert paging.init() == Status.NO_MEMORY
    features.page_1gb = True
    clear(paging.pool)
    assert paging.init() == Status.OK
    with pytest.raises((Fault, AssertionError)):
        assert rights(69 * GIB)
