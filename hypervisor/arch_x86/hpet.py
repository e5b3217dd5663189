"""The machine's HPET, read as a clock that does not depend on the TSC (IA-PC HPET 1.0a, 2.3, 3.2). A machine may have none."""
from typing import Final

from hypervisor.arch_x86.acpi import acpi
from hypervisor.arch_x86.intrinsics import load_u32, load_u64, mul_shift, store_u64
from hypervisor.lang import struct, u64

BASE_SPACE: Final = 40  # in the ACPI table: the generic address of the registers
BASE_ADDRESS: Final = 44
TABLE_BYTES: Final = 56
SPACE_MEMORY: Final = 0
BELOW_4_GIB: Final[u64] = 0xFFFF_F000
CAPABILITIES: Final = 0x00
CONFIGURATION: Final = 0x10
MAIN_COUNTER: Final = 0xF0
COUNT_SIZE_CAP: Final[u64] = 1 << 13  # 64 bits
ENABLE_CNF: Final[u64] = 1
PERIOD_MOST: Final[u64] = 100_000_000  # femtoseconds
FEMTOSECONDS_PER_NS: Final = 1_000_000


@struct
class Hpet:
    """The block in use; base 0: there is none."""

    base: u64
    ns_per_tick: u64  # 32.32 fixed point


hpet: Final = Hpet()


def init() -> None:
    """Find it by its table and let it count. Only one that counts in 64 bits is taken; acpi.init has been called."""
    hpet.base = 0
    if acpi.hpet == 0 or load_u32(acpi.hpet + 4) < TABLE_BYTES or load_u32(acpi.hpet + BASE_SPACE) & 0xFF != SPACE_MEMORY:
        return
    base = load_u64(acpi.hpet + BASE_ADDRESS)
    if base == 0 or base > BELOW_4_GIB or base & 0xFFF != 0:
        return
    capabilities = load_u64(base + CAPABILITIES)
    period: u64 = capabilities >> 32
    if capabilities & COUNT_SIZE_CAP == 0 or period == 0 or period > PERIOD_MOST:
        return
    hpet.base = base
    hpet.ns_per_tick = (period << 32) // FEMTOSECONDS_PER_NS
    store_u64(base + CONFIGURATION, load_u64(base + CONFIGURATION) | ENABLE_CNF)


def is_there() -> bool:
    """Whether nanoseconds can be asked for."""
    return hpet.base != 0


def nanoseconds() -> u64:
    """What it has counted, in ns; is_there."""
    return mul_shift(load_u64(hpet.base + MAIN_COUNTER), hpet.ns_per_tick, 32)
