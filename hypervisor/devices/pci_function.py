"""Configuration space of one emulated PCI function: a header of type 0 with two base address registers and capabilities.

Source: PCI Local Bus Specification 3.0, 6.1 (header), 6.2.5 (base addresses), 6.7 (capabilities), 6.8.2 (MSI-X); virtio 1.1, 4.1.4.

| register | a guest writes | what happens |
|---|---|---|
| 04 command | I/O, memory, bus master, SERR, interrupt disable | kept; a space that is off does not answer |
| 10 BAR 0 | base of the I/O ports | kept, aligned to IO_BYTES, below 64 KiB |
| 14 BAR 1 | base of the MSI-X page | kept, aligned to 4 KiB, below 4 GiB |
| 3C interrupt line | any byte | kept; means nothing to us |
| 42 MSI-X control | enable, function mask | kept |
| 9C, A0 virtio window | BAR, offset, length | kept; A8 then reads and writes there (virtio/ports.py) |
| the rest | anything | dropped |
"""
from typing import Annotated, Final

from hypervisor.lang import clear, struct, u32

VERSION: Final = 1
REGISTERS: Final = 64
IO_BYTES: Final = 256  # behind BAR 0
MEMORY_BYTES: Final = 4096  # behind BAR 1

COMMAND: Final = 1  # registers are numbered by their dword
CLASS: Final = 2
BAR0: Final = 4
BAR1: Final = 5
SUBSYSTEM: Final = 11
CAPABILITIES: Final = 13
INTERRUPT: Final = 15
MSIX: Final = 16
COMMAND_IO: Final[u32] = 1 << 0
COMMAND_MEMORY: Final[u32] = 1 << 1
COMMAND_INTX_DISABLE: Final[u32] = 1 << 10
COMMAND_WRITABLE: Final[u32] = 0x0507  # and bus master, SERR
STATUS_INTERRUPT: Final[u32] = 1 << 19
STATUS_CAPABILITIES: Final[u32] = 1 << 20
BAR_IO: Final[u32] = 1
BAR0_WRITABLE: Final[u32] = 0xFF00
BAR1_WRITABLE: Final[u32] = 0xFFFF_F000
INTERRUPT_LINE: Final[u32] = 0xFF
PIN_A: Final[u32] = 1 << 8
MSIX_ID: Final[u32] = 0x11
MSIX_ENABLE: Final[u32] = 1 << 31
MSIX_MASK: Final[u32] = 1 << 30
VECTORS: Final = 9  # of MSI-X
MSIX_PENDING_OFFSET: Final[u32] = 0x800  # of the pending bits in BAR 1; the table is at 0

VIRTIO_VENDOR: Final = 0x1AF4
VIRTIO_DEVICE: Final = 0x1040
CAP_VENDOR: Final[u32] = 0x09
CAP_MSIX: Final = 0x40
CAP_VIRTIO: Final = 0x50
# Virtio capabilities (4.1.4): configuration type, and where in BAR 0 the structure lies.
COMMON_OFFSET: Final = 0x00
COMMON_BYTES: Final = 0x40
ISR_OFFSET: Final = 0x40
ISR_BYTES: Final = 4
DEVICE_OFFSET: Final = 0x80
DEVICE_BYTES: Final = 0x40
NOTIFY_OFFSET: Final = 0xC0
NOTIFY_BYTES: Final = 0x40
NOTIFY_MULTIPLIER: Final = 4
WINDOW_BAR: Final = 0x9C // 4
WINDOW_OFFSET: Final = 0xA0 // 4
WINDOW_LENGTH: Final = 0xA4 // 4
WINDOW_DATA: Final = 0xA8 // 4


@struct
class PciFunction:
    """State of one function; all registers zero: nothing is there."""

    version: u32
    config: Annotated[list[u32], REGISTERS]


def make_virtio(f: PciFunction, virtio_type: u32, class_code: u32, io: u32, irq: u32) -> None:
    """A virtio 1.x function after firmware: base address, line and enabled spaces as a PC's BIOS leaves them."""
    clear(f)
    f.version = VERSION
    f.config[0] = u32(VIRTIO_DEVICE + virtio_type << 16 | VIRTIO_VENDOR)
    f.config[COMMAND] = STATUS_CAPABILITIES | COMMAND_IO
    f.config[CLASS] = class_code << 8 & 0xFFFF_FF00 | 1  # revision 1: no legacy interface
    f.config[BAR0] = io & BAR0_WRITABLE | BAR_IO
    f.config[SUBSYSTEM] = u32(VIRTIO_DEVICE + virtio_type << 16 | VIRTIO_VENDOR)
    f.config[CAPABILITIES] = CAP_VIRTIO
    f.config[INTERRUPT] = PIN_A | irq & INTERRUPT_LINE
    capability(f, 0x50, 1, COMMON_OFFSET, COMMON_BYTES, 0x60)
    capability(f, 0x60, 3, ISR_OFFSET, ISR_BYTES, 0x70)
    capability(f, 0x70, 4, DEVICE_OFFSET, DEVICE_BYTES, 0x80)
    capability(f, 0x80, 2, NOTIFY_OFFSET, NOTIFY_BYTES, 0x98)
    f.config[0x90 // 4] = NOTIFY_MULTIPLIER
    capability(f, 0x98, 5, 0, 0, 0)


def add_msix(f: PciFunction, memory: u32) -> None:
    """Let the function have messages too; only where something takes them. Table and pending bits are at `memory`."""
    f.config[COMMAND] = f.config[COMMAND] | COMMAND_MEMORY
    f.config[BAR1] = memory & BAR1_WRITABLE
    f.config[CAPABILITIES] = CAP_MSIX
    f.config[MSIX] = u32(VECTORS - 1 << 16 | CAP_VIRTIO << 8 | MSIX_ID)
    f.config[MSIX + 1] = 1  # table at offset 0 of BAR 1
    f.config[MSIX + 2] = MSIX_PENDING_OFFSET | 1


def has_msix(f: PciFunction) -> bool:
    """Whether the function can send messages."""
    return f.config[CAPABILITIES] == CAP_MSIX


def capability(f: PciFunction, place: u32, kind: u32, offset: u32, length: u32, following: u32) -> None:
    """struct virtio_pci_cap: 16 bytes, 20 for those with data behind it."""
    size: u32 = 20 if kind in (2, 5) else 16
    first: u32 = place >> 2 & 0x3F
    f.config[first] = u32(kind << 24 | size << 16 | following << 8 | CAP_VENDOR)
    f.config[first + 1] = 0  # BAR 0
    f.config[first + 2] = offset
    f.config[first + 3] = length


def writable(f: PciFunction, number: u32) -> u32:
    """Which bits of a register a guest changes."""
    if number in (BAR1, MSIX) and not has_msix(f):
        return 0
    match number:
        case 1:  # COMMAND
            return COMMAND_WRITABLE
        case 4:  # BAR0
            return BAR0_WRITABLE
        case 5:  # BAR1
            return BAR1_WRITABLE
        case 15:  # INTERRUPT
            return INTERRUPT_LINE
        case 16:  # MSIX
            return MSIX_ENABLE | MSIX_MASK
        case 39:  # WINDOW_BAR
            return 0xFF
        case 40 | 41:  # WINDOW_OFFSET, WINDOW_LENGTH
            return 0xFFFF_FFFF
        case _:
            return 0


def write(f: PciFunction, number: u32, value: u32, mask: u32) -> None:
    """Change the bits of `mask` in a register (0..63) as far as a guest may."""
    allowed: u32 = writable(f, number) & mask
    f.config[number] = f.config[number] & ~allowed | value & allowed


def present(f: PciFunction) -> bool:
    """Whether the function exists."""
    return f.config[0] != 0


def io_base(f: PciFunction) -> u32:
    """First port of BAR 0; 0: it does not answer."""
    return f.config[BAR0] & BAR0_WRITABLE if f.config[COMMAND] & COMMAND_IO else 0


def memory_base(f: PciFunction) -> u32:
    """Guest-physical address of BAR 1; 0: it does not answer."""
    return f.config[BAR1] & BAR1_WRITABLE if f.config[COMMAND] & COMMAND_MEMORY else 0


def msix_enabled(f: PciFunction) -> bool:
    """Whether interrupts are messages."""
    return f.config[MSIX] & MSIX_ENABLE != 0


def msix_masked(f: PciFunction) -> bool:
    """Whether all messages wait."""
    return f.config[MSIX] & MSIX_MASK != 0


def line_allowed(f: PciFunction) -> bool:
    """Whether the function may pull its interrupt line."""
    return not msix_enabled(f) and f.config[COMMAND] & COMMAND_INTX_DISABLE == 0


def show_line(f: PciFunction, level: bool) -> None:
    """Interrupt status in the status register: whether the function wants its line, allowed or not."""
    f.config[COMMAND] = f.config[COMMAND] & ~STATUS_INTERRUPT | (STATUS_INTERRUPT if level else 0)
