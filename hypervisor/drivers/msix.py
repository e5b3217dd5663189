"""Interrupts of PCI devices by MSI-X: the first entry of a device's table, to this CPU.

PCI Local Bus Specification 3.0, 6.8.2; Intel SDM vol. 3A 11.11 "Message Signalled Interrupts".
"""
from typing import Final

from hypervisor.arch_x86 import paging
from hypervisor.arch_x86.intrinsics import store_u32
from hypervisor.drivers import pci
from hypervisor.drivers.pci import Bar, Device
from hypervisor.lang import u32, u64

CAPABILITY: Final = 0x11
TABLE: Final = 4  # offset in the capability: BAR number in bits 0-2
ENABLE: Final = 0x8000_0000
MASK_ALL: Final = 0x4000_0000
ENTRY_BYTES: Final = 16
MESSAGE_ADDRESS: Final = 0xFEE0_0000
VECTOR_CONTROL: Final = 12
MASKED: Final = 1


def enable(device: Device, vector: u32, apic_id: u32) -> u64:
    """Let entry 0 of the device's table arrive as `vector` at the CPU of that APIC ID (below 256). The entry's address; 0: no MSI-X."""
    offset = pci.next_capability(device, 0, CAPABILITY)
    if offset == 0 or apic_id > 0xFF:
        return 0
    where = pci.read(device, offset + TABLE)
    bar = Bar()
    pci.find_bar(device, where & 7, bar)
    start = where & 0xFFFF_FFF8
    if bar.is_io or bar.size < ENTRY_BYTES or start > bar.size - ENTRY_BYTES or not paging.is_device(bar.base, bar.size):
        return 0
    control = pci.read(device, offset)
    pci.write(device, offset, control | ENABLE | MASK_ALL)
    entry = bar.base + start
    store_u32(entry, MESSAGE_ADDRESS | apic_id << 12)
    store_u32(entry + 4, 0)
    store_u32(entry + 8, vector)
    store_u32(entry + VECTOR_CONTROL, 0)
    pci.write(device, offset, u32((control | ENABLE) & ~MASK_ALL & 0xFFFF_FFFF))
    return entry


def let_interrupt(entry: u64, on: bool) -> None:
    """Unmask or mask the entry that enable gave; the device keeps an interrupt that comes meanwhile. 0: nothing is done."""
    if entry != 0:
        store_u32(entry + VECTOR_CONTROL, 0 if on else MASKED)
