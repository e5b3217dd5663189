"""The stacks of every CPU, in an area of 64 KiB each that boot.S leaves room for: below each stack lies a guard page.

| from | |
|---|---|
| 0 | CpuTables, read-only: the address of the Cpu, its GDT and TSS |
| 0x1000 | guard page, main stack |
| 0x7000, 0xA000, 0xD000 | guard page, stack of NMI, #DF, #MC (interrupt stack table entries 1, 2, 3) |

An area begins at a multiple of its size, so that every stack pointer within it leads to the Cpu (intrinsics.current_cpu).
"""
from typing import Final

from hypervisor.lang import link_address, u64
from hypervisor.model import MAX_CPUS

AREA_BYTES: Final = 0x10000
TABLES_BYTES: Final = 4096
GUARD_BYTES: Final = 4096
MAIN_STACK_BYTES: Final = 20480
IST_STACK_BYTES: Final = 8192
STACKS: Final = 4

IST_NMI: Final = 1
IST_DOUBLE_FAULT: Final = 2
IST_MACHINE_CHECK: Final = 3


def area(cpu: u64) -> u64:
    """Where the area of CPU `cpu`, below MAX_CPUS, begins."""
    return link_address("__stacks_start") + cpu * AREA_BYTES


def guard_page(cpu: u64, index: u64) -> u64:
    """The address of the guard page below stack `index` of a CPU (0: its main stack, 1 to 3: its ISTs)."""
    start = area(cpu) + TABLES_BYTES
    if index == 0:
        return start
    return start + GUARD_BYTES + MAIN_STACK_BYTES + (index - 1) * (GUARD_BYTES + IST_STACK_BYTES)


def top(cpu: u64, index: u64) -> u64:
    """The address above a stack: where its stack pointer starts."""
    size: u64 = MAIN_STACK_BYTES if index == 0 else IST_STACK_BYTES
    return guard_page(cpu, index) + GUARD_BYTES + size


def is_in_area(place: u64) -> bool:
    """Whether an address lies in a CPU's area."""
    return area(0) <= place and place < area(MAX_CPUS)


def is_tables(place: u64) -> bool:
    """Whether an address lies in a CPU's tables."""
    return is_in_area(place) and (place - area(0)) % AREA_BYTES < TABLES_BYTES


def is_guard(place: u64) -> bool:
    """Whether an address lies in a guard page: a stack overflow."""
    if not is_in_area(place):
        return False
    cpu = (place - area(0)) // AREA_BYTES
    for i in range(STACKS):
        page = guard_page(cpu, i)
        if page <= place and place < page + GUARD_BYTES:
            return True
    return False


def holds(place: u64, length: u64) -> bool:
    """Whether `length` bytes at an address lie on one of the stacks, guard pages excluded."""
    if not is_in_area(place):
        return False
    cpu = (place - area(0)) // AREA_BYTES
    for i in range(STACKS):
        if guard_page(cpu, i) + GUARD_BYTES <= place and place <= top(cpu, i) - length:
            return True
    return False
