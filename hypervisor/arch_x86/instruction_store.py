"""Length of a store instruction: what is needed to drop a write to where nothing is (SDM vol. 2A chapter 2, vol. 2 opcode maps).

Known: MOV to memory (88, 89, C6, C7, A2, A3), MOVNTI and the MOVs from SSE registers; 32- and 64-bit addressing.
"""
from __future__ import annotations

from typing import Final

from hypervisor.addresses import Hva
from hypervisor.arch_x86.instruction import byte, is_prefix
from hypervisor.lang import u32

OPERAND_SIZE_PREFIX: Final = 0x66
ADDRESS_SIZE_PREFIX: Final = 0x67
REX: Final = 0x40
TWO_BYTE: Final = 0x0F
MOV_RM8_IMM8: Final = 0xC6
MOV_RM_IMM: Final = 0xC7
MOV_MOFFS_AL: Final = 0xA2
MOV_MOFFS_EAX: Final = 0xA3
MOD_REGISTER: Final = 3
RM_SIB: Final = 4
NO_BASE: Final = 5


def store_length(code: Hva, count: u32, long_mode: bool) -> u32:
    """Bytes of the store whose first `count` bytes are at `code`, in 64-bit or 32-bit code; 0: not a store known here."""
    i: u32 = 0
    short_operand = False
    short_address = False
    while i < count and is_prefix(byte(code, i)):
        short_operand = short_operand or byte(code, i) == OPERAND_SIZE_PREFIX
        short_address = short_address or byte(code, i) == ADDRESS_SIZE_PREFIX
        i += 1
    if long_mode and i < count and byte(code, i) & 0xF0 == REX:
        i += 1
    if i + 2 > count or (short_address and not long_mode):
        return 0
    opcode = byte(code, i)
    i += 1
    if opcode in (MOV_MOFFS_AL, MOV_MOFFS_EAX):
        length: u32 = i + 8 if long_mode and not short_address else i + 4
        return length if length <= count else 0
    if opcode == TWO_BYTE:
        if byte(code, i) not in (0x11, 0x13, 0x17, 0x29, 0x2B, 0x7F, 0xC3, 0xD6, 0xE7):
            return 0
        i += 1
    elif opcode not in (0x88, 0x89, MOV_RM8_IMM8, MOV_RM_IMM):
        return 0
    operand = memory_operand(code, i, count)
    if operand == 0:
        return 0
    length = i + operand
    if opcode == MOV_RM8_IMM8:
        length += 1
    elif opcode == MOV_RM_IMM:
        length += 2 if short_operand else 4
    return length if length <= count else 0


def memory_operand(code: Hva, at_byte: u32, count: u32) -> u32:
    """Bytes of ModRM, SIB and displacement, with 32- or 64-bit addressing; 0: a register operand, or cut off."""
    if at_byte >= count:
        return 0
    modrm = byte(code, at_byte)
    mod: u32 = modrm >> 6
    rm: u32 = modrm & 7
    length: u32 = 1
    if mod == MOD_REGISTER:
        return 0
    if rm == RM_SIB:
        if at_byte + 1 >= count:
            return 0
        rm = byte(code, at_byte + 1) & 7
        length = 2
    if mod == 1:
        length += 1
    elif mod == 2 or rm == NO_BASE:
        length += 4
    return length
