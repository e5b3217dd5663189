"""hypervisor/arch_x86/memory_types.py: the type that MTRRs give an address, as the manual combines them."""
from collections.abc import Iterator

import pytest

from hypervisor.arch_x86 import memory_types
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.defs.msr import IA32_MTRR_DEF_TYPE, IA32_MTRRCAP
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.memory_types import TYPE_UC, TYPE_WB, TYPE_WT
from hypervisor.boot_info import info
from hypervisor.lang import clear

GIB = 1 << 30
PHYSICAL = (1 << 40) - 1


@pytest.fixture(autouse=True)
def _machine() -> Iterator[None]:
    machine.reset()
    clear(info)
    features.mtrr = True
    yield
    machine.reset()
    clear(info)
    clear(features)


def mtrrs(default: int, *ranges: tuple[int, int, int]) -> None:
    """Variable MTRRs (base, size, type), the last one not valid."""
    machine.msrs = {IA32_MTRR_DEF_TYPE: 0x800 | default, IA32_MTRRCAP: 0x500 | len(ranges) + 1}
    for index, (base, size, kind) in enumerate([*ranges, (0, 1 << 39, TYPE_UC)]):
        valid = 0x800 if index < len(ranges) else 0
        machine.msrs[0x200 + 2 * index] = base | kind
        machine.msrs[0x201 + 2 * index] = PHYSICAL & -size & ~0xFFF | valid


def test_a_pc_as_seabios_sets_it() -> None:
    mtrrs(TYPE_WB, (3 * GIB, GIB, TYPE_UC))
    assert [memory_types.type_of(place) for place in (GIB, 3 * GIB - 1, 3 * GIB, 4 * GIB - 1, 4 * GIB)] == [
        TYPE_WB, TYPE_WB, TYPE_UC, TYPE_UC, TYPE_WB]


def test_overlapping_ranges() -> None:
    mtrrs(TYPE_UC, (0, 4 * GIB, TYPE_WB), (GIB, GIB, TYPE_WT), (GIB, GIB // 2, TYPE_UC))
    assert [memory_types.type_of(place) for place in (0x10_0000, GIB, GIB + GIB // 2, 2 * GIB, 4 * GIB)] == [
        TYPE_WB, TYPE_UC, TYPE_WT, TYPE_WB, TYPE_UC]


def test_switched_off_mtrrs_mean_uncached() -> None:
    mtrrs(TYPE_WB)
    machine.msrs[IA32_MTRR_DEF_TYPE] = TYPE_WB
    assert memory_types.type_of(GIB) == TYPE_UC


@pytest.mark.parametrize(("end", "slow"), [(3 * GIB, False), (3 * GIB + 4096, True)])
def test_slow_memory_is_found(end: int, slow: bool) -> None:
    mtrrs(TYPE_WB, (3 * GIB, GIB, TYPE_UC))
    info.range_count = 1
    entry = info.ranges[0]
    entry.base, entry.size, entry.usable = 0x10_0000, end - 0x10_0000, True
    assert (memory_types.first_slow_place() != 0) is slow
    features.mtrr = False
    assert memory_types.first_slow_place() == 0
