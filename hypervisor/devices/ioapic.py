"""I/O APIC with 24 pins: from interrupt lines to messages for the local APICs.

Source: Intel 82093AA data sheet (290566-001); the EOI register is that of version 20 (Intel ICH data sheets, "I/O APIC").
Page at FEC00000; accesses are 32 bits wide. Pure: `wanted` says which pins have a message to send, hypervisor/apic_bus.py takes them.

| register | a guest writes | what happens |
|---|---|---|
| 00 IOREGSEL | 8 bits | selects what IOWIN shows |
| 10 IOWIN, index 0 | bits 27-24 | the identifier: stored, nothing follows |
| 10 IOWIN, index 10-3F | redirection entries | stored; bits 12 (delivery status) and 14 (remote IRR) are read-only; an unmasked level-triggered pin that is asserted sends; changing to edge clears remote IRR |
| 40 EOI | vector | as the EOI of a local APIC: remote IRR of the level-triggered pins with this vector is cleared; one still asserted sends again |
| any other | anything | nothing; reads give 0 |

Pin polarity (bit 13) is stored and has no effect: lines are asserted or not. An edge that comes while its pin is masked is lost.
Pin 0 is the 8259's output (delivery mode ExtINT), pin 2 the interval timer, others the ISA lines of their number.
"""
from typing import Annotated, Final

from hypervisor.devices.lapic import Message
from hypervisor.lang import clear, struct, u32, u64

VERSION: Final = 1
BASE: Final[u64] = 0xFEC0_0000
PINS: Final = 24
PIN_TIMER: Final = 2
VERSION_REGISTER: Final = (PINS - 1) << 16 | 0x20

SELECT: Final = 0x00
WINDOW: Final = 0x10
EOI: Final = 0x40
INDEX_ID: Final = 0
INDEX_VERSION: Final = 1
INDEX_ARBITRATION: Final = 2
INDEX_ENTRIES: Final = 0x10

REMOTE_IRR: Final[u64] = 1 << 14
LEVEL: Final[u64] = 1 << 15
MASKED: Final[u64] = 1 << 16
LOGICAL: Final[u64] = 1 << 11
WRITABLE: Final[u64] = 0xFF00_0000_0001_AFFF
MODE_EXTINT: Final = 7


@struct
class IoApic:
    """State. No pointers: it can be saved as it stands."""

    version: u32
    select: u32
    id: u32
    lines: u32  # asserted pins
    wanted: u32  # pins with a message to send
    entries: Annotated[list[u64], PINS]
    sent: Annotated[list[u64], PINS]  # messages of each pin


def reset(io: IoApic) -> None:
    """Power-on: all masked."""
    clear(io)
    io.version = VERSION
    for pin in range(PINS):
        io.entries[pin] = MASKED


def is_masked(io: IoApic, pin: u32) -> bool:
    """Whether an edge on the pin is lost."""
    return io.entries[pin] & MASKED != 0


def set_line(io: IoApic, pin: u32, level: bool) -> None:
    """Drive a pin (0..23); an edge needs a call with False before the next one with True."""
    bit: u32 = 1 << (pin & 31)
    rises = level and io.lines & bit == 0
    io.lines = io.lines | bit if level else u32(io.lines & ~bit)
    entry = io.entries[pin]
    if entry & LEVEL != 0:
        ask_by_level(io, pin)
    elif rises and entry & MASKED == 0:
        io.wanted = io.wanted | bit


def ask_by_level(io: IoApic, pin: u32) -> None:
    """A level-triggered pin sends while it is asserted, unmasked and not in service."""
    bit: u32 = 1 << (pin & 31)
    if io.lines & bit != 0 and io.entries[pin] & (MASKED | REMOTE_IRR) == 0:
        io.wanted = io.wanted | bit
    else:
        io.wanted = u32(io.wanted & ~bit)


def take_message(io: IoApic, to: Message) -> u32:
    """The message of the lowest pin that has one; `wanted` is not 0. Its pin."""
    pin: u32 = 0
    while io.wanted >> (pin & 31) & 1 == 0:
        pin = pin + 1
    io.wanted = u32(io.wanted & ~(1 << (pin & 31)))
    entry = io.entries[pin]
    to.vector = u32(entry & 0xFF)
    to.mode = u32(entry >> 8 & 7)
    to.logical = entry & LOGICAL != 0
    to.level = entry & LEVEL != 0
    to.destination = u32(entry >> 56)
    to.wide = False
    io.sent[pin] += 1
    if to.level:
        io.entries[pin] = entry | REMOTE_IRR
    return pin


def refused(io: IoApic, pin: u32) -> None:
    """Nobody took the message of this pin: a level-triggered one is not in service."""
    io.entries[pin] = io.entries[pin] & ~REMOTE_IRR


def end_of_interrupt(io: IoApic, vector: u32) -> None:
    """A level-triggered interrupt has ended at a local APIC."""
    for pin in range(PINS):
        entry = io.entries[pin]
        if entry & (LEVEL | REMOTE_IRR) == LEVEL | REMOTE_IRR and entry & 0xFF == vector:
            io.entries[pin] = entry & ~REMOTE_IRR
            ask_by_level(io, u32(pin))


def write_entry(io: IoApic, pin: u32, high: bool, value: u32) -> None:
    """One half of a redirection entry."""
    before = io.entries[pin]
    wanted: u64 = before & 0xFFFF_FFFF | u64(value) << 32 if high else before & 0xFFFF_FFFF_0000_0000 | value
    entry: u64 = wanted & WRITABLE | before & REMOTE_IRR
    if entry & LEVEL == 0:
        entry = entry & ~REMOTE_IRR
    io.entries[pin] = entry
    if entry & LEVEL != 0:
        ask_by_level(io, pin)
    elif entry & MASKED != 0:
        io.wanted = u32(io.wanted & ~(1 << (pin & 31)))


def read(io: IoApic, offset: u32) -> u32:
    """32 bits at an offset in the page."""
    if offset == SELECT:
        return io.select
    if offset != WINDOW:
        return 0
    index = io.select
    if index >= INDEX_ENTRIES and index < INDEX_ENTRIES + 2 * PINS:
        entry = io.entries[(index - INDEX_ENTRIES) >> 1]
        return u32(entry >> 32) if index & 1 else u32(entry & 0xFFFF_FFFF)
    match index:
        case 0 | 2:
            return io.id << 24
        case 1:
            return VERSION_REGISTER
        case _:
            return 0


def write(io: IoApic, offset: u32, value: u32) -> None:
    """32 bits to an offset in the page."""
    if offset == SELECT:
        io.select = value & 0xFF
    elif offset == EOI:
        end_of_interrupt(io, value & 0xFF)
    elif offset == WINDOW:
        index = io.select
        if index >= INDEX_ENTRIES and index < INDEX_ENTRIES + 2 * PINS:
            write_entry(io, (index - INDEX_ENTRIES) >> 1, index & 1 != 0, value)
        elif index == INDEX_ID:
            io.id = value >> 24 & 0xF


def is_extint(io: IoApic, to: Message) -> bool:
    """Whether pin 0 passes the 8259's interrupt on, and to whom."""
    entry = io.entries[0]
    if entry & MASKED != 0 or entry >> 8 & 7 != MODE_EXTINT:
        return False
    to.mode = MODE_EXTINT
    to.destination = u32(entry >> 56)
    to.logical = entry & LOGICAL != 0
    to.wide = False
    return True
