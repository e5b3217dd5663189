"""PCI of the machine Krait runs on: configuration space by mechanism 1, the devices that the firmware has set up, their BARs.

PCI Local Bus Specification 3.0: 3.2.2.3.2 (mechanism 1), 6.1, 6.2 (configuration header), 6.2.5 (BARs), 6.7 (capabilities);
PCI-to-PCI Bridge Architecture 1.2, 3.2.
"""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor.arch_x86.intrinsics import inl, outl
from hypervisor.lang import array, struct, u16, u32, u64

CONFIG_ADDRESS: Final[u16] = 0xCF8
CONFIG_DATA: Final[u16] = 0xCFC
CONFIG_ENABLE: Final[u64] = 0x8000_0000
NO_DEVICE: Final[u64] = 0xFFFF

# Offsets of the header, as read: 32 bits at a multiple of 4.
ID: Final = 0x00  # vendor, device
COMMAND: Final = 0x04  # command, status
CLASS: Final = 0x08  # revision, programming interface, subclass, class
HEADER_TYPE: Final = 0x0C  # bits 16-23
BAR0: Final = 0x10
BUSES: Final = 0x18  # bridges: secondary bus in bits 8-15
CAPABILITIES: Final = 0x34
INTERRUPT: Final = 0x3C  # line, pin

COMMAND_IO: Final = 0x1
COMMAND_MEMORY: Final = 0x2
COMMAND_MASTER: Final = 0x4
COMMAND_NO_INTX: Final = 0x400
STATUS_CAPABILITIES: Final = 0x10_0000
MULTI_FUNCTION: Final = 0x80
BRIDGE: Final = 1
BAR_IO: Final = 1
BAR_64: Final = 4
BAR_TYPE: Final = 6
MAX_CAPABILITIES: Final = 48
MAX_DEVICES: Final = 64
NO_LINE: Final = 0xFF


@struct
class Device:
    """One function that answered."""

    place: u32  # bus << 8 | device << 3 | function
    vendor: u32
    device: u32
    class_code: u32  # class << 16 | subclass << 8 | programming interface
    line: u32  # Interrupt Line: the 8259's input that the firmware routed it to
    pin: u32  # 0: it has no interrupt


@struct
class Bar:
    """What one base address register decodes."""

    base: u64
    size: u64  # 0: it is not there
    is_io: bool


@struct
class Found:
    """The devices, in the order of their places."""

    count: u32
    buses: Annotated[list[u64], 4]  # still to be looked at, a bit each


found: Final = Found()
devices: Final[Annotated[list[Device], MAX_DEVICES]] = array(Device, MAX_DEVICES)


def read(device: Device, offset: u32) -> u32:
    """32 bits of configuration space; `offset` is a multiple of 4 below 256."""
    return _read_at(device.place, offset)


def write(device: Device, offset: u32, value: u32) -> None:
    """Write 32 bits of configuration space."""
    outl(CONFIG_ADDRESS, u32(CONFIG_ENABLE | u64(device.place) << 8 | offset))
    outl(CONFIG_DATA, value)


def _read_at(place: u64, offset: u64) -> u32:
    outl(CONFIG_ADDRESS, u32(CONFIG_ENABLE | place << 8 | offset))
    return inl(CONFIG_DATA)


def scan() -> None:
    """Find all functions on bus 0 and behind the bridges that the firmware has numbered. Boot only."""
    found.count = 0
    found.buses[0] = 1
    for bus in range(256):
        if found.buses[bus >> 6] >> (bus & 63) & 1 != 0:
            for slot in range(32):
                _scan_slot(bus << 8 | slot << 3)


def _scan_slot(place: u64) -> None:
    if _read_at(place, ID) & 0xFFFF == NO_DEVICE:
        return
    functions: u64 = 8 if _read_at(place, HEADER_TYPE) >> 16 & MULTI_FUNCTION != 0 else 1
    for function in range(functions):
        if _read_at(place + function, ID) & 0xFFFF != NO_DEVICE and found.count < MAX_DEVICES:
            _add(place + function)


def _add(place: u64) -> None:
    device = devices[found.count]
    found.count += 1
    device.place = u32(place)
    identity = read(device, ID)
    device.vendor = identity & 0xFFFF
    device.device = identity >> 16
    device.class_code = read(device, CLASS) >> 8
    interrupt = read(device, INTERRUPT)
    device.line = interrupt & 0xFF
    device.pin = interrupt >> 8 & 0xFF
    if read(device, HEADER_TYPE) >> 16 & 0x7F == BRIDGE:
        device.pin = 0
        secondary = read(device, BUSES) >> 8 & 0xFF
        if secondary > place >> 8:  # buses are numbered downwards; no loop
            found.buses[secondary >> 6] |= 1 << (secondary & 63)


def switch_on(device: Device) -> None:
    """Let it answer at its BARs and reach memory by itself."""
    write(device, COMMAND, read(device, COMMAND) & 0xFFFF | COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER)


def cut_off(device: Device) -> None:
    """Let it reach memory no more, and not interrupt by a pin."""
    write(device, COMMAND, u32(read(device, COMMAND) & 0xFFFF & ~u64(COMMAND_MASTER)) | COMMAND_NO_INTX)


def find_bar(device: Device, index: u32, bar: Bar) -> None:
    """What BAR `index` (0 .. 5) decodes. Its size is found by writing ones while the device does not decode. Boot only."""
    bar.base = 0
    bar.size = 0
    bar.is_io = False
    if index > 5:
        return
    offset: u32 = BAR0 + 4 * index
    command = read(device, COMMAND) & 0xFFFF
    write(device, COMMAND, u32(command & ~u64(COMMAND_IO | COMMAND_MEMORY)))
    low = read(device, offset)
    write(device, offset, 0xFFFF_FFFF)
    mask: u64 = read(device, offset)
    write(device, offset, low)
    if low & BAR_IO != 0:
        bar.is_io = True
        bar.base = low & 0xFFFC
        bar.size = ((mask & 0xFFFC) ^ 0xFFFF) + 1 & 0xFFFF if mask & 0xFFFC != 0 else 0
    elif mask != 0:
        bar.base = low & 0xFFFF_FFF0
        mask = mask & 0xFFFF_FFF0 | 0xFFFF_FFFF << 32
        if low & BAR_TYPE == BAR_64 and index < 5:
            high = read(device, offset + 4)
            write(device, offset + 4, 0xFFFF_FFFF)
            mask = mask & 0xFFFF_FFFF | u64(read(device, offset + 4)) << 32
            write(device, offset + 4, high)
            bar.base |= u64(high) << 32
        bar.size = (mask ^ 0xFFFF_FFFF_FFFF_FFFF) + 1
    write(device, COMMAND, command)


def next_capability(device: Device, after: u32, kind: u32) -> u32:
    """Offset of the next capability of a kind behind the one at `after` (0: the first); 0: there is none."""
    if read(device, COMMAND) & STATUS_CAPABILITIES == 0:
        return 0
    offset: u32 = (read(device, CAPABILITIES) if after == 0 else read(device, after) >> 8) & 0xFC
    for _ in range(MAX_CAPABILITIES):  # a list with a loop ends too
        if offset < 0x40 or read(device, offset) & 0xFF == kind:
            break
        offset = read(device, offset) >> 8 & 0xFC
    return offset if offset >= 0x40 and read(device, offset) & 0xFF == kind else 0
