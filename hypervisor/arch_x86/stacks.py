"""The stacks that boot.S lays out between __stacks_start and __stacks_end: below each lies a guard page.

In this order: the boot CPU's stack, then those of NMI, #DF and #MC (interrupt stack table entries 1, 2, 3).
"""
from typing import Final

from hypervisor.lang import link_address, u64

GUARD_BYTES: Final = 4096
BOOT_STACK_BYTES: Final = 32768
IST_STACK_BYTES: Final = 8192
STACKS: Final = 4

IST_NMI: Final = 1
IST_DOUBLE_FAULT: Final = 2
IST_MACHINE_CHECK: Final = 3


def guard_page(index: u64) -> u64:
    """The address of the guard page below stack `index` (0: the boot CPU's, 1 to 3: its ISTs)."""
    start = link_address("__stacks_start")
    if index == 0:
        return start
    return start + GUARD_BYTES + BOOT_STACK_BYTES + (index - 1) * (GUARD_BYTES + IST_STACK_BYTES)


def top(index: u64) -> u64:
    """The address above stack `index`: where its stack pointer starts."""
    size: u64 = BOOT_STACK_BYTES if index == 0 else IST_STACK_BYTES
    return guard_page(index) + GUARD_BYTES + size


def is_guard(place: u64) -> bool:
    """Whether an address lies in a guard page: a stack overflow."""
    for i in range(STACKS):
        page = guard_page(i)
        if page <= place and place < page + GUARD_BYTES:
            return True
    return False


def holds(place: u64, length: u64) -> bool:
    """Whether `length` bytes at an address lie on one of the stacks, guard pages excluded."""
    for i in range(STACKS):
        if guard_page(i) + GUARD_BYTES <= place and place <= top(i) - length:
            return True
    return False
