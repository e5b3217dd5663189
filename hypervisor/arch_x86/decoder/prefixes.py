"""Legacy prefixes and REX (SDM vol. 2A 2.1.1, 2.2.1; AMD APM vol. 3, 1.2)."""
from typing import Final

from hypervisor.arch_x86.decoder.instruction import NO_SEGMENT, REX_W, Instruction, peek, take
from hypervisor.arch_x86.state import CS, DS, ES, FS, GS, SS
from hypervisor.lang import u32

REPNE: Final = 0xF2
REP: Final = 0xF3
REX: Final = 0x40


def read(to: Instruction) -> None:
    """All prefixes. A REX that is not the last of them does not count."""
    to.segment = NO_SEGMENT
    while not to.cut_off:
        byte = peek(to)
        if to.bits == 64 and byte & 0xF0 == REX:
            to.rex = byte
        elif legacy(to, byte):
            to.rex = 0
        else:
            break
        take(to)
    to.operand_size = operand_size(to)
    to.address_size = address_size(to)


def legacy(to: Instruction, byte: u32) -> bool:
    """Note one; False: it is none."""
    segment = segment_of(byte)
    if segment != NO_SEGMENT:
        if to.bits != 64 or segment in (FS, GS):  # the others do nothing in 64-bit code
            to.segment = segment
        return True
    match byte:
        case 0x66:
            to.operand_size_prefix = True
        case 0x67:
            to.address_size_prefix = True
        case 0xF0:
            to.lock = True
        case 0xF2 | 0xF3:
            to.repeat = byte
        case _:
            return False
    return True


def segment_of(byte: u32) -> u32:
    """The segment that an override names."""
    match byte:
        case 0x26:
            return ES
        case 0x2E:
            return CS
        case 0x36:
            return SS
        case 0x3E:
            return DS
        case 0x64:
            return FS
        case 0x65:
            return GS
        case _:
            return NO_SEGMENT


def operand_size(to: Instruction) -> u32:
    """2, 4 or 8."""
    if to.rex & REX_W != 0:
        return 8
    if to.bits == 16:
        return 4 if to.operand_size_prefix else 2
    return 2 if to.operand_size_prefix else 4


def address_size(to: Instruction) -> u32:
    """2, 4 or 8."""
    if to.bits == 64:
        return 4 if to.address_size_prefix else 8
    if to.bits == 16:
        return 4 if to.address_size_prefix else 2
    return 2 if to.address_size_prefix else 4
