"""The guest's own page tables, walked in software: linear to guest-physical, for instruction bytes and operands.

Real mode and no paging, 32-bit (with 4 MiB pages), PAE, long mode with four or five levels (2 MiB, 1 GiB). Intel SDM vol. 3A
chapter 4, AMD APM vol. 2 chapter 5. Not done: setting accessed and dirty bits (the CPU has just walked the same tables, or
will), protection keys, the PDPTE registers of PAE paging (the tables in memory are read instead).
"""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor.addresses import PAGE_MASK, Gpa, Hva
from hypervisor.arch_x86.defs.cr import (CR0_PG, CR0_WP, CR4_LA57, CR4_PAE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_LMA, EFER_NXE)
from hypervisor.lang import struct, u32, u64
from hypervisor.memory import guest_memory
from hypervisor.model import Vm
from hypervisor.status import Status

# What an access is; the numbers are those of the #PF error code (SDM vol. 3A, 4.7).
PF_PRESENT: Final = 1
ACCESS_READ: Final = 0
ACCESS_WRITE: Final = 2
ACCESS_USER: Final = 4
PF_RESERVED: Final = 8
ACCESS_FETCH: Final = 16

RFLAGS_AC: Final[u64] = 1 << 18

PTE_P: Final[u64] = 1
PTE_W: Final[u64] = 2
PTE_U: Final[u64] = 4
PTE_PS: Final[u64] = 1 << 7
PTE_NX: Final[u64] = 1 << 63
PTE_FRAME: Final[u64] = 0x000F_FFFF_FFFF_F000
PTE_FRAME_32: Final[u64] = 0xFFFF_F000
PAE_CR3: Final[u64] = 0xFFFF_FFE0
PDPTE_RIGHTS_RESERVED: Final[u64] = 0x1E6  # PAE: bits 1, 2, 5 to 8 of a page-directory-pointer entry
LOW_32: Final[u64] = 0xFFFF_FFFF
INSTRUCTION_MOST: Final = 15  # bytes


@struct
class PagingMode:
    """The registers that decide about a walk, as the guest has them."""

    cr0: u64
    cr3: u64
    cr4: u64
    efer: u64
    rflags: u64


@struct
class Translation:
    """What a walk found."""

    gpa: Gpa  # OK: the address behind the linear one
    error_code: u32  # NOT_FOUND: of the #PF that the access would raise


@struct
class Walk:
    """A walk under way: rights gathered so far."""

    table: u64  # guest-physical address of the table to look in
    level: u32  # 0: its entries map 4 KiB
    rights: u64  # PTE_W and PTE_U if every entry so far has them
    no_execute: bool
    depth: u32  # entries read
    narrow: bool  # they are 32 bits wide
    places: Annotated[list[u64], 5]  # guest-physical
    entries: Annotated[list[u64], 5]


walk: Final = Walk()


def translate(vm: Vm, mode: PagingMode, linear: u64, access: u32, result: Translation) -> Status:
    """Walk the guest's tables for `linear` and an access (ACCESS_* bits ORed).

    OK; NOT_FOUND: the access would raise #PF with result.error_code; BAD_ARGUMENT: not canonical (#GP); BAD_ADDRESS: a table is
    outside the VM's RAM. The address found may lie outside RAM.
    """
    if mode.cr0 & CR0_PG == 0:
        walk.depth = 0
        result.gpa = Gpa(linear & LOW_32)
        return Status.OK
    if mode.efer & EFER_LMA != 0:
        if not canonical(linear, 57 if mode.cr4 & CR4_LA57 != 0 else 48):
            return Status.BAD_ARGUMENT
    else:
        linear = linear & LOW_32
    _begin(mode)
    status = _walk_32(vm, mode, linear, access, result) if mode.cr4 & CR4_PAE == 0 \
        else _walk_64(vm, mode, linear, access, result)
    if status == Status.OK and not _allowed(mode, access):
        result.error_code = _code(mode, access, PF_PRESENT)
        return Status.NOT_FOUND
    return status


def canonical(linear: u64, bits: u32) -> bool:
    """Whether the bits from `bits - 1` up are all equal."""
    top: u64 = linear >> ((bits - 1) & 63)
    return top == 0 or top == (u64(1) << ((65 - bits) & 63)) - 1


def _begin(mode: PagingMode) -> None:
    """Set out from CR3."""
    walk.rights = PTE_W | PTE_U
    walk.depth = 0
    walk.narrow = mode.cr4 & CR4_PAE == 0
    walk.no_execute = False
    if mode.cr4 & CR4_PAE == 0:
        walk.level = 1
        walk.table = mode.cr3 & PTE_FRAME_32
    elif mode.efer & EFER_LMA == 0:
        walk.level = 2
        walk.table = mode.cr3 & PAE_CR3
    else:
        walk.level = 4 if mode.cr4 & CR4_LA57 != 0 else 3
        walk.table = mode.cr3 & PTE_FRAME


def _remember(place: Gpa, entry: u64) -> None:
    """The walk has read this entry."""
    walk.places[walk.depth] = place
    walk.entries[walk.depth] = entry
    walk.depth += 1


def _code(mode: PagingMode, access: u32, bits: u32) -> u32:
    """The #PF error code: the fetch bit only where NX or SMEP is in force."""
    fetch_told: bool = (mode.efer & EFER_NXE != 0 and mode.cr4 & CR4_PAE != 0) or mode.cr4 & CR4_SMEP != 0
    told = access if fetch_told else access & (ACCESS_WRITE | ACCESS_USER)
    return u32(told | bits)


def _fault(mode: PagingMode, access: u32, bits: u32, result: Translation) -> Status:
    """The walk ends in #PF."""
    result.error_code = _code(mode, access, bits)
    return Status.NOT_FOUND


def _walk_32(vm: Vm, mode: PagingMode, linear: u64, access: u32, result: Translation) -> Status:
    """32-bit paging: two levels of 1024 four-byte entries."""
    while True:
        index: u64 = (linear >> ((12 + 10 * walk.level) & 63)) & 1023
        place = Gpa(walk.table + index * 4)
        if not guest_memory.in_ram(vm, place, 4):
            return Status.BAD_ADDRESS
        entry: u64 = guest_memory.read_u32(vm, place)
        _remember(place, entry)
        if entry & PTE_P == 0:
            return _fault(mode, access, 0, result)
        walk.rights = walk.rights & entry
        if walk.level == 1 and entry & PTE_PS != 0 and mode.cr4 & CR4_PSE != 0:
            if entry & (1 << 21) != 0:
                return _fault(mode, access, PF_PRESENT | PF_RESERVED, result)
            high: u64 = (entry >> 13) & 0xFF  # PSE-36: address bits 32 to 39
            result.gpa = Gpa((high << 32) | (entry & 0xFFC0_0000) | (linear & 0x3F_FFFF))
            return Status.OK
        walk.table = entry & PTE_FRAME_32
        if walk.level == 0:
            result.gpa = Gpa(walk.table | (linear & PAGE_MASK))
            return Status.OK
        walk.level = u32(walk.level - 1)


def _walk_64(vm: Vm, mode: PagingMode, linear: u64, access: u32, result: Translation) -> Status:
    """PAE and long mode: levels of 512 eight-byte entries (PAE: 4 in the first)."""
    long_mode: bool = mode.efer & EFER_LMA != 0
    while True:
        shift: u32 = 12 + 9 * walk.level
        place = Gpa(walk.table + ((linear >> (shift & 63)) & 511) * 8)
        if not guest_memory.in_ram(vm, place, 8):
            return Status.BAD_ADDRESS
        entry = guest_memory.read_u64(vm, place)
        _remember(place, entry)
        if entry & PTE_P == 0:
            return _fault(mode, access, 0, result)
        if _reserved(mode, long_mode, entry):
            return _fault(mode, access, PF_PRESENT | PF_RESERVED, result)
        if walk.level != 2 or long_mode:  # PAE's first level has no rights
            walk.rights = walk.rights & entry
            walk.no_execute = walk.no_execute or entry & PTE_NX != 0
        within: u64 = (u64(1) << (shift & 63)) - 1
        if walk.level == 0 or (entry & PTE_PS != 0 and walk.level < 3):
            result.gpa = Gpa((entry & PTE_FRAME & ~within) | (linear & within))
            return Status.OK
        walk.table = entry & PTE_FRAME
        walk.level = u32(walk.level - 1)


def _reserved(mode: PagingMode, long_mode: bool, entry: u64) -> bool:
    """Whether an entry of PAE or long mode has a reserved bit set (the CPU's address width is not looked at)."""
    if entry & PTE_NX != 0 and mode.efer & EFER_NXE == 0:
        return True
    if not long_mode and walk.level == 2:
        return entry & PDPTE_RIGHTS_RESERVED != 0
    if entry & PTE_PS == 0 or walk.level == 0:
        return False
    if walk.level == 1:
        return entry & 0x1F_E000 != 0
    if walk.level == 2:
        return entry & 0x3FFF_E000 != 0
    return True


def _allowed(mode: PagingMode, access: u32) -> bool:
    """Whether the rights gathered allow the access (SDM vol. 3A, 4.6.1)."""
    user_page: bool = walk.rights & PTE_U != 0
    fetch: bool = access & ACCESS_FETCH != 0
    if fetch and walk.no_execute:
        return False
    if access & ACCESS_USER != 0:
        return user_page and (access & ACCESS_WRITE == 0 or walk.rights & PTE_W != 0)
    if access & ACCESS_WRITE != 0 and walk.rights & PTE_W == 0 and mode.cr0 & CR0_WP != 0:
        return False
    if not user_page:
        return True
    if fetch:
        return mode.cr4 & CR4_SMEP == 0
    return mode.cr4 & CR4_SMAP == 0 or mode.rflags & RFLAGS_AC != 0


def fetch(vm: Vm, mode: PagingMode, linear: u64, user: bool, target: Hva, most: u32) -> u32:
    """Copy up to `most` (at most INSTRUCTION_MOST) instruction bytes at `linear` to `target`; how many could be fetched.

    `linear` is CS base + RIP. Short where the next page would fault or is not RAM. Each byte is fetched once.
    """
    assert most <= INSTRUCTION_MOST
    access: u32 = ACCESS_FETCH | ACCESS_USER if user else ACCESS_FETCH
    found = Translation()
    done: u64 = 0
    while done < most:
        if translate(vm, mode, linear + done, access, found) != Status.OK:
            break
        part = guest_memory.piece(found.gpa, most - done)
        if guest_memory.read(vm, Hva(target + done), found.gpa, part) != Status.OK:
            break
        done += part
    return u32(done)
