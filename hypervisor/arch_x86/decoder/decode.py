"""Length and parts of any instruction of 16-, 32- and 64-bit code.

Lengths follow the shape of the encoding: an encoding that a CPU refuses within a defined opcode (LOCK where it is not
allowed, a reserved ModRM) has one too. Branches with an operand-size prefix in 64-bit code are those of Intel CPUs.
"""
from __future__ import annotations

from typing import Final

from hypervisor.addresses import Hva
from hypervisor.arch_x86.decoder import modrm, prefixes
from hypervisor.arch_x86.decoder.instruction import (LENGTH_MOST, MAP_0F, MAP_0F3A, MAP_0F38, MAP_ONE_BYTE, NO_REGISTER, REX_B, REX_R,
                                                     Instruction, peek, take, take_number)
from hypervisor.arch_x86.defs.opcodes import (HAS_MODRM, IMM_8, IMM_8_IF_TEST, IMM_16, IMM_16_8, IMM_BRANCH, IMM_FAR,
                                              IMM_OFFSET, IMM_V, IMM_Z, IMM_Z_IF_TEST, IMMEDIATE, NOT_IN_64, ONE_BYTE,
                                              TWO_BYTE, UNDEFINED)
from hypervisor.arch_x86.intrinsics import load_u8
from hypervisor.lang import clear, u32

ESCAPE: Final = 0x0F
EVEX: Final = 0x62
VEX3: Final = 0xC4
VEX2: Final = 0xC5
XOP: Final = 0x8F
XOP_MAP_FIRST: Final = 8
MAP_XOP_8: Final = 8
MAP_XOP_A: Final = 10
MOV_CR_FIRST: Final = 0x20
MOV_CR_LAST: Final = 0x23
EXTRQ_INSERTQ: Final = 0x78
VZEROUPPER: Final = 0x77


def decode(code: Hva, count: u32, bits: u32, to: Instruction) -> bool:
    """Decode the instruction whose first `count` bytes are at `code`, in code of 16, 32 or 64 bits. False: refused; length is 0."""
    clear(to)
    to.code = code
    to.count = count
    to.bits = bits
    to.base = NO_REGISTER
    to.index = NO_REGISTER
    prefixes.read(to)
    defined: bool = vector(to, take(to)) if starts_vector(to) else general(to)
    if not defined or to.cut_off:
        to.length = 0
    return to.length != 0


def starts_vector(to: Instruction) -> bool:
    """VEX, EVEX or XOP at the next byte; outside 64-bit code told from LES, LDS and BOUND by a ModRM that those cannot have."""
    byte = peek(to)
    if byte not in (EVEX, VEX2, VEX3, XOP) or to.length + 1 >= to.count or to.length + 1 >= LENGTH_MOST:
        return False
    following: u32 = load_u8(Hva(to.code + to.length + 1))
    if byte == XOP:
        return following & 0x1F >= XOP_MAP_FIRST
    return to.bits == 64 or following & 0xC0 == 0xC0


def vector(to: Instruction, first: u32) -> bool:
    """Only the length: map and opcode, ModRM, displacement, immediate."""
    to.vector = True
    if to.rex != 0 or to.lock or to.operand_size_prefix or to.repeat != 0:
        return False
    second = take(to)
    to.map = MAP_0F
    if first == EVEX:
        to.map = second & 7
        take(to)
        take(to)
    elif first != VEX2:
        to.map = second & 0x1F
        take(to)
    to.opcode = take(to)
    if first != EVEX and to.map == MAP_0F and to.opcode == VZEROUPPER:
        return True
    modrm.read(to)
    if to.map == MAP_XOP_A:
        take_number(to, 4)
    elif to.map in (MAP_0F3A, MAP_XOP_8) or to.map == MAP_0F and TWO_BYTE[to.opcode] & IMMEDIATE == IMM_8:
        take(to)
    return True


def general(to: Instruction) -> bool:
    """The maps without VEX. False: undefined."""
    to.opcode = take(to)
    to.map = MAP_ONE_BYTE
    shape: u32 = ONE_BYTE[to.opcode]
    if to.opcode == ESCAPE:
        to.opcode = take(to)
        to.map = MAP_0F
        shape = TWO_BYTE[to.opcode]
        if to.opcode == 0x38:
            to.opcode = take(to)
            to.map = MAP_0F38
            shape = HAS_MODRM
        elif to.opcode == 0x3A:
            to.opcode = take(to)
            to.map = MAP_0F3A
            shape = HAS_MODRM | IMM_8
    if shape & UNDEFINED != 0 or shape & NOT_IN_64 != 0 and to.bits == 64:
        return False
    if to.map == MAP_0F and MOV_CR_FIRST <= to.opcode <= MOV_CR_LAST:
        read_registers(to)
    elif shape & HAS_MODRM != 0:
        modrm.read(to)
    read_immediate(to, shape & IMMEDIATE)
    if to.map == MAP_0F and to.opcode == EXTRQ_INSERTQ and \
            (to.repeat == prefixes.REPNE or to.repeat == 0 and to.operand_size_prefix):
        take_number(to, 2)
    return True


def read_registers(to: Instruction) -> None:
    """ModRM of MOV CR, DR: mod is ignored, as by the CPU."""
    byte = take(to)
    to.has_modrm = True
    to.mod = modrm.MOD_REGISTER
    to.reg = modrm.extended((byte >> 3) & 7, to.rex & REX_R)
    to.rm = modrm.extended(byte & 7, to.rex & REX_B)


def read_immediate(to: Instruction, kind: u32) -> None:
    """What follows the memory operand."""
    if kind == IMM_OFFSET:
        to.memory = True
        to.displacement = take_number(to, to.address_size)
    elif kind == IMM_FAR:
        take_number(to, z_size(to))
        take_number(to, 2)
    elif kind == IMM_16_8:
        take_number(to, 2)
        take(to)
    else:
        to.immediate = take_number(to, immediate_size(to, kind))


def immediate_size(to: Instruction, kind: u32) -> u32:
    """Bytes of a plain one."""
    test: bool = to.reg & 7 <= 1
    if kind == IMM_8 or kind == IMM_8_IF_TEST and test:
        return 1
    if kind == IMM_16:
        return 2
    if kind == IMM_Z or kind == IMM_Z_IF_TEST and test:
        return z_size(to)
    if kind == IMM_V:
        return to.operand_size
    if kind == IMM_BRANCH:
        return 4 if to.bits == 64 else to.operand_size
    return 0


def z_size(to: Instruction) -> u32:
    """2 or 4."""
    return 2 if to.operand_size == 2 else 4
