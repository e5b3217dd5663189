"""A guest's memory type range registers: stored and checked, never obeyed, because all guest RAM is write-back.

SDM vol. 3A rev. 083, 12.11. Eight variable ranges, the fixed ranges, the default type.
"""
from typing import Final

from hypervisor.lang import u32, u64
from hypervisor.model import Vcpu

VARIABLE: Final = 0x200
VARIABLE_COUNT: Final = 16  # base and mask of eight ranges
FIX_64K: Final = 0x250
FIX_16K: Final = 0x258
FIX_4K: Final = 0x268
DEF_TYPE: Final = 0x2FF

CAPABILITIES: Final[u64] = 0x508  # IA32_MTRRCAP: eight variable ranges, fixed ranges, write-combining
DEF_TYPE_FIRMWARE: Final[u64] = 0xC06  # enabled, fixed ranges enabled, write-back
FIXED_WRITE_BACK: Final[u64] = 0x0606_0606_0606_0606

# Places in Vcpu.kept.mtrr: the variable ranges, then the fixed ones, then the default type.
FIXED_SLOT: Final = 16
DEF_TYPE_SLOT: Final = 27
NONE: Final = 28


def slot_of(msr: u32) -> u32:
    """Where a register is kept in Vcpu.kept.mtrr; NONE if it is no MTRR."""
    if msr < VARIABLE or msr > DEF_TYPE:
        return NONE
    if msr < VARIABLE + VARIABLE_COUNT:
        return u32(msr - VARIABLE)
    if msr == FIX_64K:
        return FIXED_SLOT
    if msr in (FIX_16K, FIX_16K + 1):
        return u32(FIXED_SLOT + 1 + msr - FIX_16K)
    if FIX_4K <= msr < FIX_4K + 8:
        return u32(FIXED_SLOT + 3 + msr - FIX_4K)
    return DEF_TYPE_SLOT if msr == DEF_TYPE else NONE


def types_are_valid(value: u64, pat: bool) -> bool:
    """Whether each of the eight bytes is a memory type: UC, WC, WT, WP, WB; the PAT has UC- too (12.11.2.2, table 12-10)."""
    for index in range(8):
        kind: u64 = value >> (8 * index & 63) & 0xFF
        if kind > 7 or kind in (2, 3) or (kind == 7 and not pat):
            return False
    return True


def is_valid(slot: u32, value: u64) -> bool:
    """Whether a register takes this value (12.11.2); bits above the physical width are not checked."""
    if slot == DEF_TYPE_SLOT:
        return value & ~u64(0xCFF) == 0 and types_are_valid(value & 0xFF, False)
    if slot >= FIXED_SLOT:
        return types_are_valid(value, False)
    if slot & 1 != 0:
        return value & 0x7FF == 0
    return value & 0xF00 == 0 and types_are_valid(value & 0xFF, False)


def start(vcpu: Vcpu) -> None:
    """What firmware leaves: all memory write-back, no variable range."""
    vcpu.kept.mtrr[DEF_TYPE_SLOT] = DEF_TYPE_FIRMWARE
    for slot in range(FIXED_SLOT, DEF_TYPE_SLOT):
        vcpu.kept.mtrr[slot] = FIXED_WRITE_BACK
