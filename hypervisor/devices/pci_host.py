"""PCI configuration mechanism 1: a host bridge and, behind it, the emulated functions of a VM (pci_function.py).

Source: PCI Local Bus Specification 3.0, 3.2.2.3.2 (mechanism), 6.1 (configuration space header).

| port | a guest writes | what happens |
|---|---|---|
| CF8 (32 bits) | CONFIG_ADDRESS | enable, bus, device, function, register; other sizes are not decoded |
| CFC-CFF | CONFIG_DATA | the register of that function; absent functions read all ones and drop writes |

Bus 0 alone; each device has function 0 alone.
"""
from typing import Annotated, Final

from hypervisor.devices import pci_function
from hypervisor.devices.pci_function import PciFunction
from hypervisor.lang import clear, struct, u32

VERSION: Final = 2
SLOTS: Final = 8  # device 0 is the bridge
NO_SLOT: Final = SLOTS
ENABLE: Final[u32] = 0x8000_0000
ADDRESS_WRITABLE: Final[u32] = 0x80FF_FFFC
NOT_A_SLOT: Final[u32] = 0x00FF_0700  # bus, function
ALL_ONES: Final[u32] = 0xFFFF_FFFF
# Red Hat's generic host bridge: a bridge that no driver has quirks for. Class 060000.
BRIDGE_ID: Final[u32] = 0x0008_1B36
BRIDGE_CLASS: Final[u32] = 0x0600_0000


@struct
class PciHost:
    """State of the mechanism and of the functions, by device number."""

    version: u32
    address: u32
    functions: Annotated[list[PciFunction], SLOTS]


def reset(host: PciHost) -> None:
    """Power-on: the bridge alone."""
    clear(host)
    host.version = VERSION
    bridge = host.functions[0]
    bridge.version = pci_function.VERSION
    bridge.config[0] = BRIDGE_ID
    bridge.config[pci_function.CLASS] = BRIDGE_CLASS


def write_address(host: PciHost, value: u32) -> None:
    """CONFIG_ADDRESS."""
    host.address = value & ADDRESS_WRITABLE


def selected_slot(host: PciHost) -> u32:
    """Device number that CONFIG_ADDRESS names; NO_SLOT if there is none."""
    slot: u32 = host.address >> 11 & 0x1F
    if not host.address & ENABLE or host.address & NOT_A_SLOT or slot >= SLOTS or not pci_function.present(host.functions[slot]):
        return NO_SLOT
    return slot


def selected_register(host: PciHost) -> u32:
    """Number of the register that CONFIG_ADDRESS names, 0..63."""
    return host.address >> 2 & 0x3F


def size_mask(size: u32) -> u32:
    """All bits of 1, 2 or 4 bytes."""
    return 0xFF if size == 1 else (0xFFFF if size == 2 else ALL_ONES)


def read_data(host: PciHost, offset: u32, size: u32) -> u32:
    """CONFIG_DATA: 1, 2 or 4 bytes at byte `offset` (0..3); what would lie behind the fourth byte reads zero."""
    slot = selected_slot(host)
    if slot == NO_SLOT:
        return size_mask(size)
    value = host.functions[slot].config[selected_register(host)]
    return value >> (8 * offset & 31) & size_mask(size)


def write_data(host: PciHost, offset: u32, size: u32, value: u32) -> None:
    """CONFIG_DATA: 1, 2 or 4 bytes at byte `offset` (0..3); what would lie behind the fourth byte is dropped."""
    slot = selected_slot(host)
    if slot in (0, NO_SLOT):
        return
    shift: u32 = 8 * offset & 31
    mask = u32(size_mask(size) << shift & ALL_ONES)
    pci_function.write(host.functions[slot], selected_register(host), u32(value << shift & ALL_ONES), mask)
