"""The I/O APIC: routes device interrupts to the local APIC; and the old 8259 pair, silenced.

Intel 82093AA data sheet, 3.0; 8259A data sheet.
"""
from typing import Final

from hypervisor.arch_x86 import lapic
from hypervisor.arch_x86.acpi import IsaInterrupt, acpi, isa_interrupt
from hypervisor.arch_x86.intrinsics import load_u32, outb, store_u32
from hypervisor.lang import u8, u32

IOREGSEL: Final = 0x00
IOWIN: Final = 0x10

IOAPICVER: Final = 0x01
IOREDTBL: Final = 0x10

ACTIVE_LOW: Final = 0x2000
LEVEL: Final = 0x8000
MASKED: Final = 0x1_0000

PIC_DATA_1: Final = 0x21
PIC_DATA_2: Final = 0xA1
PIC_ALL_MASKED: Final = 0xFF


def init() -> u32:
    """Mask every input of the 8259s and the I/O APIC; the number of its inputs."""
    outb(PIC_DATA_1, PIC_ALL_MASKED)
    outb(PIC_DATA_2, PIC_ALL_MASKED)
    inputs = (_read(IOAPICVER) >> 16 & 0xFF) + 1
    for i in range(inputs):
        _write(u32(IOREDTBL + 2 * i), MASKED)
    return u32(inputs)


def route_isa(irq: u8, vector: u32) -> bool:
    """Deliver an ISA interrupt to this CPU as `vector`; False: it arrives at no input of the I/O APIC we know."""
    source = IsaInterrupt()
    isa_interrupt(irq, source)
    inputs = (_read(IOAPICVER) >> 16 & 0xFF) + 1
    if source.gsi < acpi.ioapic_gsi or source.gsi - acpi.ioapic_gsi >= inputs:
        return False
    entry = u32(IOREDTBL + 2 * (source.gsi - acpi.ioapic_gsi))
    flags: u32 = vector
    if source.active_low:
        flags |= ACTIVE_LOW
    if source.level:
        flags |= LEVEL
    _write(entry + 1, lapic.apic_id() << 24)
    _write(entry, flags)
    return True


def _read(register: u32) -> u32:
    store_u32(acpi.ioapic_base + IOREGSEL, register)
    return load_u32(acpi.ioapic_base + IOWIN)


def _write(register: u32, value: u32) -> None:
    store_u32(acpi.ioapic_base + IOREGSEL, register)
    store_u32(acpi.ioapic_base + IOWIN, value)
