"""Address types: guest-physical, host-physical and host-virtual never mix (mypy keeps them apart).

Bytes unless named frame numbers; a frame is 4 KiB.
"""
from typing import Final, NewType

from hypervisor.lang import u64

Gpa = NewType("Gpa", u64)  # guest-physical address
Gfn = NewType("Gfn", u64)  # guest frame number
Hpa = NewType("Hpa", u64)  # host-physical address
Hfn = NewType("Hfn", u64)  # host frame number
Hva = NewType("Hva", u64)  # host-virtual address

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 4096
PAGE_MASK: Final[u64] = 0xFFF
LARGE_PAGE_SIZE: Final = 0x200000


def hva_of(hpa: Hpa) -> Hva:
    """The address under which the hypervisor reaches physical memory (identity map)."""
    return Hva(hpa)


def hpa_of(hva: Hva) -> Hpa:
    """The inverse of hva_of, for hypervisor data handed to the hardware."""
    return Hpa(hva)
