"""ACPI fixed hardware: PM1 event and control blocks. Sleep type 5 (soft off) ends the VM.

Source: ACPI 6.4, 4.8.3.1 (PM1 event), 4.8.3.2 (PM1 control).

| offset | a guest writes | what happens |
|---|---|---|
| 0 (16 bits) | PM1 status | bits written as 1 are cleared (none is ever set: there is no button and no wake-up) |
| 2 (16 bits) | PM1 enable | stored |
| 4 (16 bits) | PM1 control | SLP_EN with SLP_TYP 5: power off; with another type: nothing; else stored (SCI_EN stays set, the mode is always ACPI) |

Accesses of one byte reach the half of the register that they name.
"""
from typing import Final

from hypervisor.lang import struct, u16, u32

VERSION: Final = 1
PM1_ENABLE: Final = 2
PM1_CONTROL: Final = 4
SCI_EN: Final = 0x0001
SLP_EN: Final = 0x2000
SLP_TYP_SHIFT: Final = 10
SLP_TYP_SOFT_OFF: Final = 5
CONTROL_WRITABLE: Final = 0x1C02  # SLP_TYP, BM_RLD


@struct
class AcpiPm:
    """State of the blocks."""

    version: u32
    enable: u16
    control: u16


def reset(pm: AcpiPm) -> None:
    """Power-on."""
    pm.version = VERSION


def register(pm: AcpiPm, offset: u32) -> u32:
    """The 16-bit register at an even offset."""
    match offset:
        case 2:
            return pm.enable
        case 4:
            return u32(pm.control | SCI_EN)
        case _:
            return 0


def read(pm: AcpiPm, offset: u32, size: u32) -> u32:
    """Read 1, 2 or 4 bytes at offset 0..5."""
    even: u32 = u32(offset & 6)
    both = register(pm, even) | register(pm, u32(even + 2)) << 16
    return u32(both >> (8 * (offset & 1)) & (0xFF if size == 1 else (0xFFFF if size == 2 else 0xFFFF_FFFF)))


def write_register(pm: AcpiPm, offset: u32, value: u16) -> bool:
    """Write the 16-bit register at an even offset; True: power off."""
    if offset == PM1_ENABLE:
        pm.enable = value
    elif offset == PM1_CONTROL:
        if value & SLP_EN:
            return value >> SLP_TYP_SHIFT & 7 == SLP_TYP_SOFT_OFF
        pm.control = value & CONTROL_WRITABLE
    return False


def write(pm: AcpiPm, offset: u32, size: u32, value: u32) -> bool:
    """Write 1, 2 or 4 bytes at offset 0..5; True: power off."""
    even: u32 = u32(offset & 6)
    if size == 1:
        # The status register has write-one-to-clear bits and is never set, so merging is harmless there too.
        shift = 8 * (offset & 1)
        kept = register(pm, even) & (0xFF00 if shift == 0 else 0x00FF)
        return write_register(pm, even, u16(kept | value << (shift & 15) & 0xFFFF))
    off = write_register(pm, even, u16(value & 0xFFFF))
    if size == 4:
        return write_register(pm, u32(even + 2), u16(value >> 16)) or off
    return off
