"""Instructions on [rdi] and strings, for 64-bit code, with random prefixes, registers and immediates."""
from __future__ import annotations

import random
from dataclasses import dataclass

from hypervisor.arch_x86.decoder.alu import AF, ARITHMETIC, CF, ZF
from tests.decoder.native import NAMES

RDI_INDIRECT = 7
RFLAGS_DF = 1 << 10
NEGATIVE_BITS = 64 * 8
ALU = [row + low for row in range(0, 0x40, 8) for low in range(4)]
ONE_BYTE = [*ALU, 0x63, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8B]
TWO_BYTE = [0xA3, 0xAB, 0xB0, 0xB1, 0xB3, 0xB6, 0xB7, 0xBA, 0xBB, 0xBE, 0xBF, 0xC0, 0xC1, 0xC3]
IMMEDIATE = [0x80, 0x81, 0x83, 0xC6, 0xC7, 0xF6, 0xF7]
STRINGS = [0xA4, 0xA5, 0xAA, 0xAB, 0xAC, 0xAD]
BIT_BY_REGISTER = (0xA3, 0xAB, 0xB3, 0xBB)


@dataclass
class Form:
    """One instruction and what it starts from; RDI and RSI are the caller's."""

    code: bytes
    registers: dict[str, int]
    flags: int  # those of RFLAGS that are defined afterwards


def flags_defined(opcode: int, two_byte: bool, extension: int) -> int:
    """Which of the six flags the manuals define."""
    if two_byte:
        return CF | ZF if opcode in (*BIT_BY_REGISTER, 0xBA) else ARITHMETIC
    operation = opcode >> 3 if opcode < 0x40 else extension if opcode in (0x80, 0x81, 0x83) else 0
    logic = operation in (1, 4, 6) or opcode in (0x84, 0x85, 0xF6, 0xF7)
    return ARITHMETIC & ~AF if logic else ARITHMETIC


def form(rng: random.Random) -> Form:
    """Any of them."""
    registers = {name: rng.choice([rng.getrandbits(64), (1 << 64) - 1, rng.getrandbits(8), 0]) for name in NAMES}
    registers["rflags"] = 0x202 | rng.getrandbits(12) & ARITHMETIC | rng.choice([0, RFLAGS_DF])
    size, rex = rng.choice([(b"", 0), (b"\x66", 0), (b"", 0x48)])
    kind = rng.randrange(4)
    if kind == 3:
        opcode = rng.choice(STRINGS)
        registers["rcx"] = rng.randrange(40)
        repeat = rng.choice([b"", b"\xf3", b"\xf2"])
        return Form(size + repeat + (bytes([rex]) if rex else b"") + bytes([opcode]), registers, ARITHMETIC)
    opcode = rng.choice((ONE_BYTE, TWO_BYTE, IMMEDIATE)[kind])
    high_bytes = opcode & 1 == 0 and not rex and opcode not in (0xB6, 0xBE)
    number = rng.randrange(7 if high_bytes else 4)
    extension = rng.randrange(8) if opcode in (0x80, 0x81, 0x83) else 0
    if opcode == 0xBA:
        extension = rng.randrange(4, 8)
    reg = extension if kind == 2 or opcode == 0xBA else number
    if opcode == 0xC3:  # MOVNTI has no 16 bits
        size = b""
    if kind == 1 and opcode in BIT_BY_REGISTER:
        registers[NAMES[number & 3]] = rng.randrange(-NEGATIVE_BITS, NEGATIVE_BITS) & (1 << 64) - 1
        reg = number & 3
    immediate = b""
    if kind == 2:
        width = 1 if opcode in (0x80, 0x83, 0xC6, 0xF6) else 2 if size else 4
        immediate = rng.randbytes(width)
    elif opcode == 0xBA:
        immediate = rng.randbytes(1)
    start = size + (bytes([rex]) if rex else b"") + (b"\x0f" if kind == 1 else b"")
    code = start + bytes([opcode, reg << 3 | RDI_INDIRECT]) + immediate
    return Form(code, registers, flags_defined(opcode, kind == 1, extension))
