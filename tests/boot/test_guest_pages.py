"""hypervisor/arch_x86/guest_pages.py: which frames are user pages, after init and as they change hands."""
from __future__ import annotations

from typing import Iterator

import pytest

from hypervisor.addresses import Hfn, Hpa
from hypervisor.arch_x86 import acpi, guest_pages, paging, traps
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.lapic import IA32_APIC_BASE
from hypervisor.arch_x86.trap_frame import PAGE_FAULT, TrapFrame
from hypervisor.boot_info import info
from hypervisor.lang import clear, map_memory, read_memory, set_link_address, unmap_memory, write_memory
from hypervisor.memory import frames, ledger
from hypervisor.memory.ledger import Kind
from hypervisor.status import Status

MIB = 1 << 20
GIB = 1 << 30
RAM_END = 16 * MIB
HIGH = 4 * MIB
SITES, CODE = MIB, MIB + 0x1000  # where the fake image has its table of windows, and their code


@pytest.fixture(params=[False, True])
def ram(request: pytest.FixtureRequest) -> Iterator[None]:
    machine.reset()
    machine.msrs = {paging.IA32_EFER: 0x500, IA32_APIC_BASE: 0xFEE0_0900}
    machine.registers = {"cr0": 0x8000_0011, "cr4": 0x620 | paging.CR4_PGE}
    for name, value in (("__text_start", MIB), ("__text_end", MIB + 0x2000), ("__rodata_start", MIB + 0x2000), ("__rodata_end", MIB + 0x3000),
                        ("__stacks_start", MIB + 0x10000), ("__image_end", MIB + 0x90000), ("__smap_start", SITES), ("__smap_end", SITES + 8)):
        set_link_address(name, value)
    for of in (paging.pool, paging.paging, info, features, guest_pages.pages, ledger.book):
        clear(of)
    acpi.acpi.ioapic_base = acpi.DEFAULT_IOAPIC
    features.page_1gb = request.param
    map_memory(MIB, bytearray(RAM_END - MIB))
    info.ranges[0].base, info.ranges[0].size, info.ranges[0].usable = MIB, RAM_END - MIB - 0x8000, True
    info.ranges[1].base, info.ranges[1].size, info.ranges[1].usable = GIB, HIGH, True  # in a page of 1 GiB if the CPU has those
    info.range_count = 2
    for index, place in enumerate((CODE, CODE + 16)):
        write_memory(SITES + 4 * index, 4, place)
        write_memory(place, 3, 0xCA1F0F)
    yield
    unmap_memory(MIB)
    clear(guest_pages.pages)
    machine.reset()


def is_user(place: int) -> bool:
    """By a walk as the CPU would make it: a page is a user page if every entry on the way says so."""
    table = machine.registers["cr3"]
    user = True
    for shift in (39, 30, 21, 12):
        entry = read_memory(table + 8 * (place >> shift & 511), 8)
        if not entry & paging.PTE_PRESENT:
            return False  # a guard page
        user = user and entry & paging.PTE_USER != 0
        table = entry & paging.PTE_ADDRESS
        if shift == 12 or entry & paging.PTE_LARGE:
            assert table == place & -(1 << shift), "mapped elsewhere"
            assert entry & paging.PTE_NX and entry & paging.PTE_WRITE or place < 2 * MIB
            return user
    raise AssertionError


def boot(smap: bool) -> None:
    features.smap = smap
    assert paging.init() == Status.OK
    assert frames.init() == Status.OK


def test_free_frames_and_the_tables_are_user_pages_and_nothing_else_is(ram: None) -> None:
    boot(True)
    assert machine.registers["cr0"] & paging.CR0_WP and machine.registers["cr4"] & paging.CR4_PGE
    assert guest_pages.pages.tables == 7 + 2 + features.page_1gb
    tables = hypervisors = 0
    for hfn in (*range(MIB >> 12, RAM_END >> 12), *range(GIB >> 12, GIB + HIGH >> 12)):
        kind = ledger.kind_of(Hfn(hfn))
        if kind == Kind.FREE:
            assert is_user(hfn << 12)
        elif is_user(hfn << 12):
            tables += 1
        else:
            hypervisors += kind == Kind.HYPERVISOR
    assert tables == guest_pages.pages.tables
    assert hypervisors >= ledger.book.limit * 16 >> 12


def test_windows_become_what_they_are(ram: None) -> None:
    boot(True)
    assert [read_memory(place, 3) for place in (CODE, CODE + 16)] == [0xCA010F, 0xCA010F]
    assert not machine.window_open


def test_frames_change_sides_as_they_change_hands(ram: None) -> None:
    boot(True)
    one = frames.alloc()
    row = frames.alloc_contiguous(3)
    for place in (one, row, row + 0x2000):
        assert not is_user(place) and place in machine.invalidated
        assert guest_pages.drop_stale(place) and not guest_pages.is_guests(place)
    frames.free(one)
    frames.free_contiguous(row, 3)
    for place in (one, row, row + 0x2000):
        assert is_user(place)
        assert not guest_pages.drop_stale(place) and guest_pages.is_guests(place)


@pytest.mark.parametrize("place", [0, MIB, RAM_END, 2 * GIB, 0xFEE0_0000, 1 << 40, (1 << 64) - 1])
def test_addresses_that_are_no_memory_behind_the_image(ram: None, place: int) -> None:
    boot(True)
    assert not guest_pages.drop_stale(place) and not guest_pages.is_guests(place)


def test_an_old_right_in_a_tlb_is_tried_again(ram: None) -> None:
    """Another CPU took the frame while this one had it as a user page: the fault is no fault. A guest's page is one."""
    boot(True)
    frame = TrapFrame()
    frame.vector = PAGE_FAULT
    for error in (traps.PF_PRESENT, traps.PF_PRESENT | traps.PF_WRITE):
        frame.error = error
        machine.registers["cr2"] = frames.alloc()
        assert traps._was_stale(frame)
        machine.registers["cr2"] = ledger.book.first_free << 12
        assert not traps._was_stale(frame)
    frame.error = traps.PF_PRESENT | traps.PF_FETCH
    machine.registers["cr2"] = frames.alloc()
    assert not traps._was_stale(frame)


def test_without_smap_all_stays_as_it_was(ram: None) -> None:
    boot(False)
    assert guest_pages.pages.tables == 0 and read_memory(CODE, 3) == 0xCA1F0F
    hpa = frames.alloc()
    assert hpa != Hpa(0) and not is_user(hpa) and machine.invalidated == []
    frames.free(hpa)
    assert not guest_pages.drop_stale(hpa)
