"""Decodes many slots of bytes at once; written in the subset, so that the comparison runs interpreted and compiled."""
from __future__ import annotations

from typing import Final

from hypervisor.addresses import Hva
from hypervisor.arch_x86.decoder import alu, decode, mmio
from hypervisor.arch_x86.decoder.alu import Values
from hypervisor.arch_x86.decoder.instruction import LENGTH_MOST, Instruction
from hypervisor.arch_x86.decoder.mmio import Access, Operation
from hypervisor.lang import at, sizeof, struct, u8, u32, u64

SLOT: Final = 16


@struct
class Row:
    """What was found in one slot."""

    displacement: u64
    immediate: u64
    length: u8
    known: bool
    operation: u8
    width: u8
    register: u8
    register_width: u8
    high_byte: bool
    to_register: bool
    repeat: bool
    base: u8
    index: u8
    scale: u8
    rip_relative: bool
    segment: u8
    address_size: u8
    spare: u8


def run(code: Hva, count: u32, bits: u32, rows: Hva) -> None:
    """`count` slots at `code`, one Row each at `rows`."""
    instruction = Instruction()
    access = Access()
    for i in range(count):
        row = at(Row, Hva(rows + i * sizeof(Row)))
        decode.decode(Hva(code + i * SLOT), LENGTH_MOST, bits, instruction)
        row.known = mmio.describe(instruction, access)
        row.length = instruction.length
        row.operation = u8(u32(access.operation))
        row.width = access.width
        row.register = access.register
        row.register_width = access.register_width
        row.high_byte = access.high_byte
        row.to_register = access.to_register
        row.repeat = access.repeat
        row.base = instruction.base
        row.index = instruction.index
        row.scale = instruction.scale
        row.rip_relative = instruction.rip_relative
        row.segment = instruction.segment
        row.address_size = instruction.address_size
        row.displacement = instruction.displacement
        row.immediate = instruction.immediate


def compute(operation: u32, width: u32, to_register: bool, values: Values) -> None:
    """alu.apply by number."""
    alu.apply(Operation(operation), width, to_register, values)
