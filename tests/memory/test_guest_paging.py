"""The software walk of guests' page tables against tables whose meaning the test knows, for it made them."""
from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor.addresses import PAGE_SIZE, Gfn, Gpa, Hva
from hypervisor.arch_x86.defs.cr import (CR0_PG, CR0_WP, CR4_LA57, CR4_PAE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_LMA, EFER_LME,
                                         EFER_NXE)
from hypervisor.lang import address, array, u8
from hypervisor.memory import backing, guest_memory, guest_paging
from hypervisor.memory.guest_paging import (ACCESS_FETCH, ACCESS_USER, ACCESS_WRITE, PF_PRESENT, PF_RESERVED, RFLAGS_AC, PagingMode,
                                            Translation)
from hypervisor.model import Vm
from hypervisor.status import Status
from tests.memory.world import World

PAGES = 64
P, W, U, PS, NX = 1, 2, 4, 0x80, 1 << 63


@dataclass
class Form:
    """One kind of paging: bits of index at each level from the root, size of an entry, where large pages may be."""

    name: str
    index_bits: list[int]
    entry_bytes: int
    large: list[int]  # levels, 0: 4 KiB entries
    cr4: int
    efer: int
    linear_bits: int


FORMS = [
    Form("32-bit", [10, 10], 4, [1], CR4_PSE, 0, 32),
    Form("32-bit, no PSE", [10, 10], 4, [], 0, 0, 32),
    Form("PAE", [2, 9, 9], 8, [1], CR4_PAE, EFER_NXE, 32),
    Form("long", [9, 9, 9, 9], 8, [1, 2], CR4_PAE, EFER_LME | EFER_LMA | EFER_NXE, 48),
    Form("long, five levels", [9, 9, 9, 9, 9], 8, [1, 2], CR4_PAE | CR4_LA57, EFER_LME | EFER_LMA | EFER_NXE, 57),
    Form("long, no NX", [9, 9, 9, 9], 8, [1, 2], CR4_PAE, EFER_LME | EFER_LMA, 48)]


@dataclass
class Tables:
    """Tables under construction in a VM's memory."""

    vm: Vm
    form: Form
    tables: dict[tuple[int, ...], int] = field(default_factory=dict)
    next: int = 1

    def table(self, path: tuple[int, ...]) -> int:
        if path not in self.tables:
            self.tables[path] = self.next * PAGE_SIZE
            self.next += 1
        return self.tables[path]

    def split(self, linear: int, depth: int) -> list[int]:
        """Indexes of the first `depth` levels."""
        shift, found = 12 + sum(self.form.index_bits), []
        for bits in self.form.index_bits[:depth]:
            shift -= bits
            found.append(linear >> shift & (1 << bits) - 1)
        return found

    def put(self, path: tuple[int, ...], value: int) -> None:
        place = Gpa(self.table(path[:-1]) + path[-1] * self.form.entry_bytes)
        assert backing.back(self.vm, Gfn(place >> 12)) == Status.OK
        write = guest_memory.write_u64 if self.form.entry_bytes == 8 else guest_memory.write_u32
        assert write(self.vm, place, value) == Status.OK

    def span(self, level: int) -> int:
        return 1 << 12 + sum(self.form.index_bits[len(self.form.index_bits) - level:])

    def map(self, linear: int, target: int, level: int, rights: list[int]) -> None:
        """Let the page of `level` around `linear` lead to `target`, with the rights (P, W, U, NX) given for each level."""
        path = self.split(linear, len(self.form.index_bits) - level)
        pae_root = self.form.name == "PAE"
        for depth in range(1, len(path)):
            bits = rights[depth - 1] & (P if pae_root and depth == 1 else P | W | U | NX)
            self.put(tuple(path[:depth]), self.table(tuple(path[:depth])) | bits)
        self.put(tuple(path), target | rights[len(path) - 1] | (PS if level else 0))


def mode_of(form: Form, vm: Vm, wp: bool, smep: bool, smap: bool, ac: bool) -> PagingMode:
    mode = PagingMode()
    mode.cr0 = CR0_PG | (CR0_WP if wp else 0) | 1
    mode.cr3 = PAGE_SIZE | (0x18 if form.efer & EFER_LMA else 0)  # PWT, PCD are no address
    mode.cr4 = form.cr4 | (CR4_SMEP if smep else 0) | (CR4_SMAP if smap else 0)
    mode.efer = form.efer
    mode.rflags = RFLAGS_AC if ac else 0
    return mode


def expected(form: Form, rights: list[int], mode: PagingMode, access: int) -> tuple[Status, int]:
    """Status and error code, by the rules of the manual, from what the test put into the tables."""
    nx_on = bool(form.efer & EFER_NXE) and form.entry_bytes == 8
    fetch_told = nx_on or mode.cr4 & CR4_SMEP
    code = access & (ACCESS_WRITE | ACCESS_USER | (ACCESS_FETCH if fetch_told else 0))
    effective = rights[1:] if form.name == "PAE" else rights
    for number, one in enumerate(rights):
        if not one & P:
            return Status.NOT_FOUND, code
        if one & NX and form.entry_bytes == 8 and not form.efer & EFER_NXE:
            return Status.NOT_FOUND, code | PF_PRESENT | PF_RESERVED
    user = all(one & U for one in effective)
    writable = all(one & W for one in effective)
    no_execute = any(one & NX for one in effective) and form.entry_bytes == 8
    allowed = not (access & ACCESS_FETCH and no_execute)
    if access & ACCESS_USER:
        allowed = allowed and user and (writable or not access & ACCESS_WRITE)
    else:
        if access & ACCESS_WRITE and not writable and mode.cr0 & CR0_WP:
            allowed = False
        if user and access & ACCESS_FETCH and mode.cr4 & CR4_SMEP:
            allowed = False
        if user and not access & ACCESS_FETCH and mode.cr4 & CR4_SMAP and not mode.rflags & RFLAGS_AC:
            allowed = False
    return (Status.OK, 0) if allowed else (Status.NOT_FOUND, code | PF_PRESENT)


RIGHTS = st.one_of(st.just(P | W | U), st.builds(lambda *bits: sum(bits), st.sampled_from([P, P, P, 0]), st.sampled_from([W, 0]),
                                                 st.sampled_from([U, 0]), st.sampled_from([0, 0, 0, NX])))


@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(data=st.data(), form=st.sampled_from(FORMS), flags=st.tuples(*[st.booleans()] * 4),
       access=st.sampled_from([0, ACCESS_WRITE, ACCESS_FETCH, ACCESS_USER, ACCESS_USER | ACCESS_WRITE, ACCESS_USER | ACCESS_FETCH]))
def test_walks(data: st.DataObject, form: Form, flags: tuple[bool, bool, bool, bool], access: int) -> None:
    with closing(World(240)) as world:
        vm = world.vm(PAGES)
        tables = Tables(vm, form)
        tables.table(())
        level = data.draw(st.sampled_from([0, *form.large]))
        half = data.draw(st.integers(0, (1 << form.linear_bits) - 1))
        linear = half if form.efer & EFER_LMA == 0 or not half >> form.linear_bits - 1 else half | (1 << 64) - (1 << form.linear_bits)
        rights = [data.draw(RIGHTS) & (~NX if form.entry_bytes == 4 else -1) for _ in range(len(form.index_bits) - level)]
        if form.name == "PAE":
            rights[0] &= P
        target = data.draw(st.integers(0, 2**32 // tables.span(level) - 1)) * tables.span(level)
        tables.map(half, target, level, rights)
        mode, found = mode_of(form, vm, *flags), Translation()
        status = guest_paging.translate(vm, mode, linear, access, found)
        wanted, code = expected(form, rights, mode, access)
        assert status == wanted
        if wanted == Status.OK:
            assert found.gpa == target + half % tables.span(level)
        else:
            assert found.error_code == code
        world.check()


def test_no_paging_and_not_canonical() -> None:
    with closing(World(240)) as world:
        vm, mode, found = world.vm(PAGES), PagingMode(), Translation()
        assert guest_paging.translate(vm, mode, 0x1_0000_1234, 0, found) == Status.OK and found.gpa == 0x1234
        mode.cr0, mode.efer, mode.cr4 = CR0_PG, EFER_LMA, CR4_PAE
        for linear in (1 << 47, 0xFFFF_7FFF_FFFF_FFFF, 1 << 63):
            assert guest_paging.translate(vm, mode, linear, 0, found) == Status.BAD_ARGUMENT
        mode.cr4 |= CR4_LA57
        assert guest_paging.translate(vm, mode, 1 << 47, 0, found) == Status.NOT_FOUND
        mode.cr3 = PAGES * PAGE_SIZE
        assert guest_paging.translate(vm, mode, 0, 0, found) == Status.BAD_ADDRESS


@pytest.mark.parametrize(("level", "bit"), [(1, 13), (1, 20), (2, 13), (2, 29)])
def test_reserved_bits_of_large_pages(level: int, bit: int) -> None:
    with closing(World(240)) as world:
        vm, form, found = world.vm(PAGES), FORMS[3], Translation()
        tables = Tables(vm, form)
        tables.table(())
        tables.map(0x12345678, 1 << bit, level, [P | W | U] * 4)
        mode = mode_of(form, vm, True, False, False, False)
        assert guest_paging.translate(vm, mode, 0x12345678, ACCESS_WRITE, found) == Status.NOT_FOUND
        assert found.error_code == ACCESS_WRITE | PF_PRESENT | PF_RESERVED


def test_instruction_bytes_across_a_page_end() -> None:
    with closing(World(240)) as world:
        vm, form = world.vm(PAGES), FORMS[3]
        tables = Tables(vm, form)
        tables.table(())
        tables.map(0x40_0000, 40 * PAGE_SIZE, 0, [P | W | U] * 4)
        tables.map(0x40_1000, 30 * PAGE_SIZE, 0, [P | W | U] * 4)
        code = bytes(range(1, 16))
        for index, value in enumerate(code):
            gpa = Gpa((40 * PAGE_SIZE + 0xFFA + index) if index < 6 else 30 * PAGE_SIZE + index - 6)
            assert backing.back(vm, Gfn(gpa >> 12)) == Status.OK
            guest_memory.write_u8(vm, gpa, value)
        mode, room = mode_of(form, vm, True, True, True, False), array(u8, 16)
        place = Hva(address(room))
        assert guest_paging.fetch(vm, mode, 0x40_0FFA, True, place, 15) == 15
        assert bytes(room[i] for i in range(15)) == code
        assert guest_paging.fetch(vm, mode, 0x40_1FFE, True, place, 15) == 2  # the next page is not mapped
        assert guest_paging.fetch(vm, mode, 0x40_0FFA, False, place, 15) == 0  # SMEP
        tables.map(0x40_1000, 0x1000_0000, 0, [P | W | U] * 4)
        assert guest_paging.fetch(vm, mode, 0x40_0FFA, True, place, 15) == 6  # not RAM
