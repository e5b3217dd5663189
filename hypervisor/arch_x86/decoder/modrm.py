"""ModRM, SIB and displacement (SDM vol. 2A 2.1.3, 2.1.5, 2.2.1; AMD APM vol. 3, 1.4)."""
from typing import Annotated, Final

from hypervisor.arch_x86.decoder.instruction import NO_REGISTER, REX_B, REX_R, REX_X, Instruction, take, take_number
from hypervisor.arch_x86.state import DS, SS
from hypervisor.lang import u8, u32

MOD_REGISTER: Final = 3
RM_SIB: Final = 4
RSP: Final = 4
RBP: Final = 5
RM_DISPLACEMENT_16: Final = 6

BASE_16: Final[Annotated[list[u8], 8]] = [3, 3, 5, 5, 6, 7, 5, 3]  # BX, BX, BP, BP, SI, DI, BP, BX
INDEX_16: Final[Annotated[list[u8], 8]] = [6, 7, 6, 7, NO_REGISTER, NO_REGISTER, NO_REGISTER, NO_REGISTER]


def read(to: Instruction) -> None:
    """The ModRM byte and what it asks for."""
    byte = take(to)
    to.has_modrm = True
    to.mod = byte >> 6
    to.reg = extended((byte >> 3) & 7, to.rex & REX_R)
    to.rm = byte & 7
    if to.mod == MOD_REGISTER:
        to.rm = extended(to.rm, to.rex & REX_B)
    elif to.address_size == 2:
        read_16(to)
    else:
        read_32(to)


def extended(number: u32, bit: u32) -> u32:
    """A register number with its bit from REX."""
    return number + 8 if bit != 0 else number


def read_16(to: Instruction) -> None:
    """16-bit addressing."""
    to.memory = True
    to.base = BASE_16[to.rm]
    to.index = INDEX_16[to.rm]
    if to.mod == 0 and to.rm == RM_DISPLACEMENT_16:
        to.base = NO_REGISTER
        to.displacement = take_number(to, 2)
    elif to.mod != 0:
        to.displacement = take_number(to, to.mod)


def read_32(to: Instruction) -> None:
    """32- and 64-bit addressing."""
    to.memory = True
    base: u32 = to.rm
    to.index = NO_REGISTER
    if to.rm == RM_SIB:
        sib = take(to)
        base = sib & 7
        to.scale = sib >> 6
        to.index = extended((sib >> 3) & 7, to.rex & REX_X)
        if to.index == RSP:
            to.index = NO_REGISTER
    to.base = extended(base, to.rex & REX_B)
    if to.mod == 0 and base == RBP:
        to.base = NO_REGISTER
        to.rip_relative = to.bits == 64 and to.rm != RM_SIB
        to.displacement = take_number(to, 4)
    elif to.mod == 1:
        to.displacement = take_number(to, 1)
    elif to.mod == 2:
        to.displacement = take_number(to, 4)


def default_segment(to: Instruction) -> u32:
    """Of the memory operand, without an override: SS with RSP or RBP as base."""
    return SS if to.base in (RSP, RBP) else DS
