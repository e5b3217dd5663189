"""An instruction that a vCPU has carried out on a device, with all that it depends on: see mmio_known.py."""
from typing import Annotated, Final

from hypervisor.addresses import Hva
from hypervisor.arch_x86.code_key import CodeKey
from hypervisor.lang import struct, u32, u64

KNOWN: Final = 4  # a vCPU; a power of two
LEVELS: Final = 5


@struct
class Step:
    """An entry of the guest's page tables on the way to the code."""

    place: Hva  # 0: the way was shorter
    entry: u64


@struct
class KnownInstruction:
    """A plain move between a register, or a number, and a device."""

    rip: u64
    length: u32  # 0: nothing is kept here
    epoch: u64  # Vm.epoch: the addresses below are good while it is the same
    key: CodeKey
    steps: Annotated[list[Step], LEVELS]
    narrow: bool  # entries are 32 bits wide
    to_register: bool
    rip_relative: bool
    flat: bool  # DS has no base
    code: Hva
    code_high: Hva  # its second word; `code` again if that would lie in the next page: then the instruction is in the first alone
    bytes_low: u64  # the code; beyond `length` zero
    bytes_high: u64
    mask_low: u64
    mask_high: u64
    base: u32  # NO_REGISTER: none
    index: u32
    scale: u32
    register: u32  # the other operand; NO_REGISTER: immediate
    width: u32
    displacement: u64
    immediate: u64
