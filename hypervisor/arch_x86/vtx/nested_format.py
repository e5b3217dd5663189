"""The bits of nested page-table entries under VT-x: EPT (Intel SDM vol. 3C rev. 085, 29.3.2, tables 29-1 to 29-7)."""
from __future__ import annotations

from typing import Final

from hypervisor.lang import u64
from hypervisor.memory.nested_walk import entry_format

READ: Final[u64] = 1
WRITE: Final[u64] = 2
EXECUTE: Final[u64] = 4
WRITE_BACK: Final[u64] = 6 << 3  # memory type
IGNORE_PAT: Final[u64] = 1 << 6
LARGE: Final[u64] = 1 << 7
ACCESSED: Final[u64] = 1 << 8
DIRTY: Final[u64] = 1 << 9


def fill() -> None:
    """State the format to the common walker, before the first VM is made. RAM is write-back whatever the guest's PAT says."""
    entry_format.present_mask = READ | WRITE | EXECUTE
    entry_format.table_bits = READ | WRITE | EXECUTE
    entry_format.leaf_bits = READ | WRITE_BACK | IGNORE_PAT
    entry_format.write_bit = WRITE
    entry_format.execute_bit = EXECUTE
    entry_format.not_execute_bit = 0
    entry_format.large_bit = LARGE
    entry_format.accessed_bit = ACCESSED
    entry_format.dirty_bit = DIRTY
