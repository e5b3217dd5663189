"""The little that is decoded in software: length and operands of MOV to and from control and debug registers, length of others.

Encodings: AMD APM vol. 3, chapter 1. Only for CPUs without decode assists.
"""
from typing import Final

from hypervisor.addresses import Hva
from hypervisor.arch_x86.intrinsics import load_u8
from hypervisor.lang import struct, u32

TWO_BYTE: Final = 0x0F
MOV_FROM_CR: Final = 0x20
MOV_TO_DR: Final = 0x23
REX_B: Final = 1
REX_R: Final = 4


@struct
class Decoded:
    """One instruction."""

    length: u32  # 0: not one of those known here, or cut off
    opcode: u32  # second byte, behind 0F; or the only one
    register: u32  # MOV CR, DR: the general register, in the order of Registers
    number: u32  # MOV CR, DR: which one


def decode(code: Hva, count: u32, long_mode: bool, to: Decoded) -> None:
    """Decode the instruction whose first `count` bytes are at `code`."""
    rex: u32 = 0
    i: u32 = 0
    to.length = 0
    while i < count and is_prefix(byte(code, i)):
        i += 1
    if long_mode and i < count and byte(code, i) & 0xF0 == 0x40:
        rex = byte(code, i)
        i += 1
    if i >= count:
        return
    to.opcode = byte(code, i)
    i += 1
    if to.opcode == TWO_BYTE:
        if i >= count:
            return
        to.opcode = byte(code, i)
        i += 1
        if MOV_FROM_CR <= to.opcode <= MOV_TO_DR:
            if i >= count:
                return
            operands(byte(code, i), rex, to)
            i += 1
        elif to.opcode == 0x01:  # group 7: XSETBV, VMMCALL and others, all with a ModRM byte of mod 3
            i += 1
    if i <= count:
        to.length = i


def operands(modrm: u32, rex: u32, to: Decoded) -> None:
    """ModRM of MOV CR, DR: reg is the control register, rm the general one; mod is ignored, as by the CPU."""
    to.number = (modrm >> 3) & 7
    to.register = modrm & 7
    if rex & REX_R != 0:
        to.number += 8
    if rex & REX_B != 0:
        to.register += 8


def byte(code: Hva, i: u32) -> u32:
    """One byte."""
    return load_u8(Hva(code + i))


def is_prefix(value: u32) -> bool:
    """A legacy prefix."""
    return value in (0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65)
