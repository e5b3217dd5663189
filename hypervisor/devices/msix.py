"""MSI-X table and pending bits of one function, as they appear in its memory.

Source: PCI Local Bus Specification 3.0, 6.8.2. The function's own enable and mask bits are in pci_function.py.

| offset | a guest writes | what happens |
|---|---|---|
| 0, 16, 32 ... | message address, data, vector control | kept; of the control bit 0, mask, alone |
| pending bits | anything | dropped |
"""
from typing import Annotated, Final

from hypervisor.devices.pci_function import MSIX_PENDING_OFFSET, VECTORS
from hypervisor.lang import clear, struct, u32

VERSION: Final = 1
WORDS: Final = VECTORS * 4
MASKED: Final[u32] = 1


@struct
class Msix:
    """State: four words a vector (address low, high, data, control), and one pending bit each."""

    version: u32
    pending: u32
    words: Annotated[list[u32], WORDS]


def reset(m: Msix) -> None:
    """Power-on: all masked."""
    clear(m)
    m.version = VERSION
    for vector in range(VECTORS):
        m.words[4 * vector + 3] = MASKED


def read(m: Msix, offset: u32) -> u32:
    """The dword at an aligned offset of the page."""
    if offset < WORDS * 4:
        return m.words[offset >> 2]
    return m.pending if offset == MSIX_PENDING_OFFSET else 0


def write(m: Msix, offset: u32, value: u32) -> None:
    """Change the dword at an aligned offset. Afterwards the owner sends what is pending and allowed (take)."""
    if offset < WORDS * 4:
        m.words[offset >> 2] = value & MASKED if offset & 12 == 12 else value


def post(m: Msix, vector: u32, masked: bool) -> bool:
    """The device has an event for `vector` (below VECTORS); False: it waits, as the vector or the function is masked."""
    if masked or m.words[4 * vector + 3] & MASKED:
        m.pending = m.pending | 1 << (vector & 31)
        return False
    return True


def take(m: Msix) -> u32:
    """A vector that is pending and not masked; VECTORS if there is none. It is pending no more."""
    for vector in range(VECTORS):
        if m.pending >> (vector & 31) & 1 and not m.words[4 * vector + 3] & MASKED:
            m.pending = m.pending & ~u32(1 << (vector & 31))
            return u32(vector)
    return VECTORS
