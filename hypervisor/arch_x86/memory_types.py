"""What the firmware lets be cached: PAT and MTRRs of this CPU. Guests' memory is write-back, or everything crawls.

Intel SDM vol. 3A 12.11 (MTRRs), 12.12 (PAT); AMD APM vol. 2 7.7, 7.8. Fixed-range MTRRs (below 1 MiB) are not looked at:
no guest memory lies there.
"""
from typing import Final

from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.defs.msr import IA32_MTRR_DEF_TYPE, IA32_MTRRCAP, IA32_PAT
from hypervisor.arch_x86.intrinsics import rdmsr, wrmsr
from hypervisor.boot_info import info
from hypervisor.lang import u32, u64

PAT_POWER_ON: Final[u64] = 0x0007_0406_0007_0406  # WB, WT, UC-, UC, twice: what paging.py's bits stand for
IA32_MTRR_PHYSBASE0: Final = 0x200
IA32_MTRR_PHYSMASK0: Final = 0x201
DEF_TYPE_ENABLE: Final = 0x800
PHYSMASK_VALID: Final = 0x800
MTRR_ADDRESS: Final[u64] = 0x000F_FFFF_FFFF_F000
TYPE_UC: Final = 0
TYPE_WT: Final = 4
TYPE_WB: Final = 6
NONE: Final[u64] = 0xFFFF

FIRST_MIB: Final[u64] = 0x10_0000
PROBES: Final = 256  # places looked at in each range of memory


def init() -> None:
    """Set the PAT to its power-on value, whatever the firmware has made of it."""
    wrmsr(IA32_PAT, PAT_POWER_ON)


def type_of(place: u64) -> u64:
    """The type of a physical address above 1 MiB by the MTRRs: UC wins over WT, WT over WB."""
    default = rdmsr(IA32_MTRR_DEF_TYPE)
    if default & DEF_TYPE_ENABLE == 0:
        return TYPE_UC
    found: u64 = NONE
    for i in range(rdmsr(IA32_MTRRCAP) & 0xFF):
        base = rdmsr(u32(IA32_MTRR_PHYSBASE0 + 2 * i))
        mask = rdmsr(u32(IA32_MTRR_PHYSMASK0 + 2 * i))
        if mask & PHYSMASK_VALID != 0 and (place ^ base) & mask & MTRR_ADDRESS == 0:
            kind = base & 0xFF
            if kind == TYPE_UC:
                return TYPE_UC
            if found == NONE or kind == TYPE_WT:
                found = kind
    return default & 0xFF if found == NONE else found


def first_slow_place() -> u64:
    """An address of usable memory that is not write-back, of those looked at; 0: none is known."""
    if not features.mtrr:
        return 0
    for i in range(info.range_count):
        entry = info.ranges[i]
        if entry.usable and entry.base >= FIRST_MIB and entry.size >= PROBES:
            step = entry.size // PROBES
            for k in range(PROBES):
                if type_of(entry.base + k * step) != TYPE_WB:
                    return entry.base + k * step
            if type_of(entry.base + entry.size - 1) != TYPE_WB:
                return entry.base + entry.size - 1
    return 0
