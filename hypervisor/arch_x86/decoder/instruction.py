"""One instruction, taken apart; and the reader that takes its bytes one after the other."""
from __future__ import annotations

from typing import Final

from hypervisor.addresses import Hva
from hypervisor.arch_x86.intrinsics import load_u8
from hypervisor.lang import struct, u32, u64, wrap_u64

LENGTH_MOST: Final = 15
NO_REGISTER: Final = 16
NO_SEGMENT: Final = 8
ALL_ONES: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF

MAP_ONE_BYTE: Final = 0
MAP_0F: Final = 1
MAP_0F38: Final = 2
MAP_0F3A: Final = 3

REX_B: Final = 1
REX_X: Final = 2
REX_R: Final = 4
REX_W: Final = 8


@struct
class Instruction:
    """Filled in by decode.decode. Sizes in bytes; registers in the order of Registers, segments in that of GuestState."""

    code: Hva
    count: u32  # bytes at `code`
    length: u32  # 0: refused; while decoding: bytes read
    cut_off: bool  # more bytes would be needed than are there, or than 15
    bits: u32  # of the code segment: 16, 32, 64
    # prefixes
    rex: u32  # 0: none
    operand_size_prefix: bool
    address_size_prefix: bool
    lock: bool
    repeat: u32  # the last of F2 and F3; 0: none
    segment: u32  # override; NO_SEGMENT: none
    operand_size: u32  # 2, 4, 8
    address_size: u32  # 2, 4, 8
    # opcode
    map: u32
    vector: bool  # VEX, EVEX or XOP: only the length is good
    opcode: u32
    # ModRM; of what follows, all is extended by REX
    has_modrm: bool
    mod: u32
    reg: u32
    rm: u32
    # memory operand: base + (index << scale) + displacement, or the offset of MOV A0 to A3 as displacement
    memory: bool
    base: u32  # NO_REGISTER: none
    index: u32  # NO_REGISTER: none
    scale: u32
    rip_relative: bool  # to be added: address of the next instruction
    displacement: u64  # sign-extended to 64 bits
    immediate: u64  # sign-extended to 64 bits


def peek(to: Instruction) -> u32:
    """The next byte; 0 beyond the end, which is noted."""
    if to.length >= to.count or to.length >= LENGTH_MOST:
        to.cut_off = True
        return 0
    return load_u8(Hva(to.code + to.length))


def take(to: Instruction) -> u32:
    """The next byte, and past it."""
    byte = peek(to)
    if not to.cut_off:
        to.length += 1
    return byte


def take_number(to: Instruction, size: u32) -> u64:
    """The next 0 to 8 bytes as a number, sign-extended."""
    value: u64 = 0
    for i in range(size):
        value |= u64(take(to)) << ((8 * i) & 63)
    return sign_extended(value, size)


def sign_extended(value: u64, size: u32) -> u64:
    """A number of 1 to 8 bytes, to 64 bits; 0 bytes: 0."""
    if size == 0 or size >= 8:
        return value
    mask = size_mask(size)
    if value & (mask ^ (mask >> 1)) != 0:
        return value | ALL_ONES & ~mask
    return value & mask


def size_mask(size: u32) -> u64:
    """All ones in 1 to 8 bytes."""
    return ALL_ONES >> ((64 - 8 * size) & 63)


def signed_shift(value: u64, count: u32) -> u64:
    """Shift right by 0 to 63 bits, filling with the sign."""
    shifted: u64 = value >> (count & 63)
    if value >> 63 != 0 and count != 0:
        return shifted | wrap_u64(ALL_ONES << ((64 - count) & 63))
    return shifted
