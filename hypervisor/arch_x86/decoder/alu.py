"""What the operations compute, flags included (SDM vol. 1 appendix A; vol. 2). Flags left undefined are as Intel CPUs have them."""
from __future__ import annotations

from typing import Final

from hypervisor.arch_x86.decoder.instruction import sign_extended, size_mask
from hypervisor.arch_x86.decoder.mmio import Operation
from hypervisor.lang import struct, u32, u64, wrap_u64

CF: Final[u64] = 1
PF: Final[u64] = 1 << 2
AF: Final[u64] = 1 << 4
ZF: Final[u64] = 1 << 6
SF: Final[u64] = 1 << 7
OF: Final[u64] = 1 << 11
ARITHMETIC: Final[u64] = CF | PF | AF | ZF | SF | OF


@struct
class Values:
    """Operands before, and after."""

    memory: u64
    operand: u64  # register or immediate
    accumulator: u64  # CMPXCHG
    flags: u64
    writes_memory: bool
    writes_operand: bool
    writes_accumulator: bool


def apply(operation: Operation, width: u32, to_register: bool, values: Values) -> None:
    """Carry out an operation on `width` bytes; not PUSH, POP and strings. MOV_SIGN extends from `width` to 64 bits."""
    memory: u64 = values.memory & size_mask(width)
    operand: u64 = values.operand & size_mask(width)
    values.memory = memory
    values.writes_memory = not to_register
    values.writes_operand = to_register
    match operation:
        case Operation.MOV:
            values.memory = operand
            values.operand = memory
        case Operation.MOV_ZERO:
            values.operand = memory
        case Operation.MOV_SIGN:
            values.operand = sign_extended(memory, width)
        case Operation.XCHG:
            values.memory = operand
            values.operand = memory
            values.writes_operand = True
        case Operation.XADD:
            values.memory = add(memory, operand, 0, width, values)
            values.operand = memory
            values.writes_operand = True
        case Operation.CMPXCHG:
            compare_and_exchange(memory, operand, width, values)
        case Operation.BT | Operation.BTS | Operation.BTR | Operation.BTC:
            bit(operation, memory, operand % (8 * width), values)
        case _:
            result = arithmetic(operation, operand if to_register else memory, memory if to_register else operand, width, values)
            if operation in (Operation.CMP, Operation.TEST):
                values.writes_memory = False
                values.writes_operand = False
            values.memory = result
            values.operand = result


def arithmetic(operation: Operation, first: u64, second: u64, width: u32, values: Values) -> u64:
    """The eight of the opcode map, and TEST."""
    carry: u64 = values.flags & CF
    match operation:
        case Operation.ADD:
            return add(first, second, 0, width, values)
        case Operation.ADC:
            return add(first, second, carry, width, values)
        case Operation.SBB:
            return subtract(first, second, carry, width, values)
        case Operation.SUB | Operation.CMP:
            return subtract(first, second, 0, width, values)
        case Operation.OR:
            set_flags(first | second, 0, 0, width, values)
            return first | second
        case Operation.XOR:
            set_flags(first ^ second, 0, 0, width, values)
            return first ^ second
        case Operation.AND | Operation.TEST:
            set_flags(first & second, 0, 0, width, values)
            return first & second
        case _:
            assert False, "no arithmetic"


def add(first: u64, second: u64, carry: u64, width: u32, values: Values) -> u64:
    """Sum and flags."""
    result: u64 = wrap_u64(first + second + carry) & size_mask(width)
    carries: u64 = (first & second) | ((first | second) & ~result)
    set_flags(result, carries, (first ^ result) & (second ^ result), width, values)
    return result


def subtract(first: u64, second: u64, borrow: u64, width: u32, values: Values) -> u64:
    """Difference and flags."""
    result: u64 = wrap_u64(first - second - borrow) & size_mask(width)
    borrows: u64 = (second & ~first) | (result & ~(first ^ second))
    set_flags(result, borrows, (first ^ second) & (first ^ result), width, values)
    return result


def set_flags(result: u64, carries: u64, overflows: u64, width: u32, values: Values) -> None:
    """All six. `carries` has the carry out of each bit, `overflows` the overflow in the highest bit."""
    top: u32 = 8 * width - 1
    flags: u64 = values.flags & ~ARITHMETIC
    if (carries >> (top & 63)) & 1 != 0:
        flags |= CF
    if (carries >> 3) & 1 != 0:
        flags |= AF
    if (overflows >> (top & 63)) & 1 != 0:
        flags |= OF
    if (result >> (top & 63)) & 1 != 0:
        flags |= SF
    if result == 0:
        flags |= ZF
    parity: u64 = result & 0xFF
    parity = parity ^ (parity >> 4)
    parity = parity ^ (parity >> 2)
    parity = parity ^ (parity >> 1)
    if parity & 1 == 0:
        flags |= PF
    values.flags = flags


def compare_and_exchange(memory: u64, operand: u64, width: u32, values: Values) -> None:
    """CMPXCHG writes memory in any case."""
    subtract(values.accumulator & size_mask(width), memory, 0, width, values)
    if values.flags & ZF != 0:
        values.memory = operand
    else:
        values.accumulator = memory
        values.writes_accumulator = True


def bit(operation: Operation, memory: u64, number: u64, values: Values) -> None:
    """BT and its kin: the bit goes to CF."""
    mask: u64 = u64(1) << (number & 63)
    values.flags = values.flags & ~CF
    if memory & mask != 0:
        values.flags |= CF
    match operation:
        case Operation.BTS:
            values.memory = memory | mask
        case Operation.BTR:
            values.memory = memory & ~mask
        case Operation.BTC:
            values.memory = memory ^ mask
        case _:
            values.writes_memory = False
