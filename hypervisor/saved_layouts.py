"""Where the bytes of saved device state lie. Written by build/saved_layouts.py, which tells how to read it; not to be changed by hand."""
from enum import IntEnum
from typing import Annotated, Final

from hypervisor.lang import u32


class Piece(IntEnum):
    """What is saved as one record."""

    BOARD = 0
    PIC = 1
    PIT = 2
    UART = 3
    RTC = 4
    KEYBOARD = 5
    ACPI = 6
    DEBUG_PORTS = 7
    IOAPIC = 8
    HPET = 9
    LAPIC = 10
    KEPT = 11
    PCI = 12
    VIRTIO = 13


PIECES: Final = 14
RUNS: Final = 44
# By piece: its mark, its bytes, and its first run (one more: the end).
MARKS: Final[Annotated[list[u32], PIECES]] = [
    4239658254, 432138343, 1492378743, 2153653436, 1315999776, 2474556821, 254611317, 205523294, 530901755, 1591665075, 1017078447,
    1337580090, 89479633, 2112890469,
]
BYTES: Final[Annotated[list[u32], PIECES]] = [
    41, 38, 115, 33, 178, 42, 8, 5, 404, 136, 245, 314, 2088, 608,
]
FIRST: Final[Annotated[list[u32], 15]] = [
    0, 2, 3, 8, 9, 11, 12, 13, 14, 16, 19, 23, 26, 27, 44,
]
# By run: where in the struct, and how many bytes.
OFFSETS: Final[Annotated[list[u32], RUNS]] = [
    0, 12, 0, 0, 8, 48, 88, 128, 0, 0, 8, 0, 0, 0, 0, 24, 0, 8, 48, 0, 192, 200, 216, 0, 24, 40, 0, 0, 72, 80, 128, 136, 184, 192, 240,
    248, 296, 304, 352, 360, 408, 416, 464, 472,
]
LENGTHS: Final[Annotated[list[u32], RUNS]] = [
    9, 32, 38, 4, 34, 34, 34, 9, 33, 6, 172, 42, 8, 5, 20, 384, 4, 36, 96, 191, 5, 9, 40, 17, 9, 288, 2088, 69, 4, 45, 4, 45, 4, 45, 4,
    45, 4, 45, 4, 45, 4, 45, 4, 192,
]
