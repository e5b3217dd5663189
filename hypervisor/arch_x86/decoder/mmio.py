"""Which instructions can be carried out on memory that is not there, and what they do with it."""
from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hypervisor.arch_x86.decoder.instruction import MAP_0F, MAP_ONE_BYTE, NO_REGISTER, Instruction
from hypervisor.lang import clear, struct, u32


class Operation(IntEnum):
    """The first eight in the order of their opcodes."""

    ADD = 0
    OR = 1
    ADC = 2
    SBB = 3
    AND = 4
    SUB = 5
    XOR = 6
    CMP = 7
    TEST = 8
    MOV = 9
    MOV_ZERO = 10
    MOV_SIGN = 11
    XCHG = 12
    CMPXCHG = 13
    XADD = 14
    BT = 15
    BTS = 16
    BTR = 17
    BTC = 18
    PUSH = 19
    POP = 20
    MOVS = 21
    STOS = 22
    LODS = 23
    INS = 24
    OUTS = 25


BIT_TEST: Final[Annotated[list[Operation], 4]] = [Operation.BT, Operation.BTS, Operation.BTR, Operation.BTC]


@struct
class Access:
    """What an instruction does with its memory operand, whose address is in the Instruction (strings: RSI, RDI)."""

    operation: Operation
    width: u32  # bytes of memory, 1 to 8
    register: u32  # the other operand, in the order of Registers; NO_REGISTER: Instruction.immediate, or none
    register_width: u32  # bytes
    high_byte: bool  # AH, CH, DH, BH
    to_register: bool  # the register is the destination
    repeat: bool  # strings: REP


def describe(code: Instruction, to: Access) -> bool:
    """False: not one of these, or an encoding that raises #UD."""
    clear(to)
    to.register = NO_REGISTER
    if code.length == 0 or code.vector:
        return False
    known = False
    if code.map == MAP_ONE_BYTE:
        known = string(code, to) or code.memory and one_byte(code, to)
    elif code.map == MAP_0F:
        known = code.memory and two_byte(code, to)
    if not known or code.lock and not lockable(to):
        return False
    if to.register_width == 0:
        to.register_width = to.width
    if to.register_width == 1 and code.rex == 0 and 4 <= to.register < 8:
        to.register = u32(to.register - 4)
        to.high_byte = True
    return True


def sized(code: Instruction) -> u32:
    """Operand size by the lowest bit of the opcode."""
    return code.operand_size if code.opcode & 1 != 0 else 1


def set_form(to: Access, operation: Operation, width: u32, register: u32) -> bool:
    """Fill in what all have."""
    to.operation = operation
    to.width = width
    to.register = register
    return True


def string(code: Instruction, to: Access) -> bool:
    """INS, OUTS, MOVS, STOS, LODS."""
    width = sized(code)
    to.repeat = code.repeat != 0
    match code.opcode:
        case 0x6C | 0x6D:
            return set_form(to, Operation.INS, min(width, 4), NO_REGISTER)
        case 0x6E | 0x6F:
            return set_form(to, Operation.OUTS, min(width, 4), NO_REGISTER)
        case 0xA4 | 0xA5:
            return set_form(to, Operation.MOVS, width, NO_REGISTER)
        case 0xAA | 0xAB:
            return set_form(to, Operation.STOS, width, 0)
        case 0xAC | 0xAD:
            to.to_register = True
            return set_form(to, Operation.LODS, width, 0)
        case _:
            return False


def one_byte(code: Instruction, to: Access) -> bool:
    """The one-byte map."""
    width = sized(code)
    extension: u32 = code.reg & 7
    to.to_register = code.opcode & 2 != 0
    if code.opcode < 0x40:
        return code.opcode & 7 < 4 and set_form(to, Operation(code.opcode >> 3), width, code.reg)
    match code.opcode:
        case 0x80 | 0x81 | 0x82 | 0x83:
            to.to_register = False
            return set_form(to, Operation(extension), width, NO_REGISTER)
        case 0x84 | 0x85:
            return set_form(to, Operation.TEST, width, code.reg)
        case 0x86 | 0x87:
            to.to_register = False
            return set_form(to, Operation.XCHG, width, code.reg)
        case 0x88 | 0x89 | 0x8A | 0x8B:
            return set_form(to, Operation.MOV, width, code.reg)
        case 0xA0 | 0xA1 | 0xA2 | 0xA3:
            to.to_register = code.opcode < 0xA2
            return set_form(to, Operation.MOV, width, 0)
        case 0xC6 | 0xC7:
            to.to_register = False
            return extension == 0 and set_form(to, Operation.MOV, width, NO_REGISTER)
        case 0xF6 | 0xF7:
            to.to_register = False
            return extension <= 1 and set_form(to, Operation.TEST, width, NO_REGISTER)
        case _:
            return rare(code, to)


def rare(code: Instruction, to: Access) -> bool:
    """MOVSXD, PUSH and POP."""
    extension: u32 = code.reg & 7
    stack: u32 = 2 if code.operand_size == 2 else (8 if code.bits == 64 else 4)
    to.to_register = False
    match code.opcode:
        case 0x63:
            to.to_register = True
            to.register_width = code.operand_size
            return code.bits == 64 and set_form(to, Operation.MOV_SIGN, min(code.operand_size, 4), code.reg)
        case 0x8F:
            return extension == 0 and set_form(to, Operation.POP, stack, NO_REGISTER)
        case 0xFF:
            return extension == 6 and set_form(to, Operation.PUSH, stack, NO_REGISTER)
        case _:
            return False


def two_byte(code: Instruction, to: Access) -> bool:
    """The map behind 0F."""
    width = sized(code)
    to.to_register = False
    match code.opcode:
        case 0xA3 | 0xAB | 0xB3 | 0xBB:
            return set_form(to, BIT_TEST[(code.opcode >> 3) & 3], code.operand_size, code.reg)
        case 0xBA:
            return code.reg & 4 != 0 and set_form(to, BIT_TEST[code.reg & 3], code.operand_size, NO_REGISTER)
        case 0xB0 | 0xB1:
            return set_form(to, Operation.CMPXCHG, width, code.reg)
        case 0xC0 | 0xC1:
            return set_form(to, Operation.XADD, width, code.reg)
        case 0xC3:  # MOVNTI
            plain: bool = not code.operand_size_prefix and code.repeat == 0
            return plain and set_form(to, Operation.MOV, max(code.operand_size, 4), code.reg)
        case 0xB6 | 0xB7 | 0xBE | 0xBF:
            to.to_register = True
            to.register_width = code.operand_size
            operation = Operation.MOV_ZERO if code.opcode < 0xB8 else Operation.MOV_SIGN
            return set_form(to, operation, 1 + (code.opcode & 1), code.reg)
        case _:
            return False


def lockable(to: Access) -> bool:
    """Reads, changes and writes memory."""
    if to.to_register:
        return False
    return to.operation < Operation.CMP or to.operation in (
        Operation.XCHG, Operation.CMPXCHG, Operation.XADD, Operation.BTS, Operation.BTR, Operation.BTC)
