"""The bits of nested page-table entries under SVM (AMD APM vol. 2 rev. 3.42, 5.4 and 15.25.5): those of long-mode paging."""
from __future__ import annotations

from typing import Final

from hypervisor.lang import u64
from hypervisor.memory.nested_walk import entry_format

P: Final[u64] = 1
RW: Final[u64] = 2
US: Final[u64] = 4  # nested walks are user accesses
A: Final[u64] = 1 << 5
D: Final[u64] = 1 << 6
PS: Final[u64] = 1 << 7
NX: Final[u64] = 1 << 63


def fill() -> None:
    """State the format to the common walker, before the first VM is made. PAT index 0 is write-back."""
    entry_format.present_mask = P
    entry_format.table_bits = P | RW | US
    entry_format.leaf_bits = P | US
    entry_format.write_bit = RW
    entry_format.execute_bit = 0
    entry_format.not_execute_bit = NX
    entry_format.large_bit = PS
    entry_format.accessed_bit = A
    entry_format.dirty_bit = D
