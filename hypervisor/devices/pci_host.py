"""PCI configuration mechanism 1 with a host bridge and nothing behind it.

Source: PCI Local Bus Specification 3.0, 3.2.2.3.2 (mechanism), 6.1 (configuration space header).

| port | a guest writes | what happens |
|---|---|---|
| CF8 (32 bits) | CONFIG_ADDRESS | enable, bus, device, function, register; other sizes are not decoded |
| CFC-CFF | CONFIG_DATA | the bridge's registers are read-only: dropped; absent functions read all ones |
"""
from typing import Annotated, Final

from hypervisor.lang import struct, u32

VERSION: Final = 1
ENABLE: Final = 0x8000_0000
ADDRESS_WRITABLE: Final = 0x80FF_FFFC
FUNCTION_MASK: Final = 0x00FF_FF00  # bus, device, function
# Red Hat's generic host bridge: a bridge that no driver has quirks for. Class 060000.
BRIDGE: Final[Annotated[list[u32], 4]] = [0x0008_1B36, 0x0000_0000, 0x0600_0000, 0x0000_0000]


@struct
class PciHost:
    """State of the mechanism."""

    version: u32
    address: u32


def reset(host: PciHost) -> None:
    """Power-on."""
    host.version = VERSION


def write_address(host: PciHost, value: u32) -> None:
    """CONFIG_ADDRESS."""
    host.address = value & ADDRESS_WRITABLE


def read_data(host: PciHost, offset: u32, size: u32) -> u32:
    """CONFIG_DATA: 1, 2 or 4 bytes at byte `offset` (0..3)."""
    all_ones: u32 = 0xFFFF_FFFF
    if not host.address & ENABLE or host.address & FUNCTION_MASK:
        return all_ones >> (8 * (4 - size) & 31)
    number = host.address >> 2 & 0x3F
    value: u32 = BRIDGE[number] if number < 4 else 0
    return u32(value >> (8 * (offset & 3)) & all_ones >> (8 * (4 - size) & 31))
