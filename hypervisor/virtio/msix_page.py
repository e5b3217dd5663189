"""The page behind base address register 1 of a VM's virtio functions: MSI-X table and pending bits."""
from typing import Final

from hypervisor.devices import msix, pci_function
from hypervisor.devices.pci_host import NO_SLOT, SLOTS
from hypervisor.lang import u32, u64
from hypervisor.model import Vm
from hypervisor.virtio import interrupts

PAGE_OFFSET: Final[u64] = 0xFFF
LOW: Final[u64] = 0xFFFF_FFFF


def slot_at(vm: Vm, gpa: u64) -> u32:
    """The device number whose page this is; NO_SLOT."""
    devices = vm.devices
    if devices is None or gpa > LOW:
        return NO_SLOT
    for slot in range(1, SLOTS):
        if devices.devices[slot] is not None:
            base: u64 = pci_function.memory_base(devices.host.functions[slot])
            if base != 0 and base == gpa & ~PAGE_OFFSET:
                return u32(slot)
    return NO_SLOT


def read(vm: Vm, slot: u32, offset: u64) -> u64:
    """The 8 bytes from an aligned offset on."""
    devices = vm.devices
    device = devices.devices[slot] if devices is not None else None
    assert device is not None
    place: u32 = u32(offset & PAGE_OFFSET & ~7)
    return u64(msix.read(device.registers.msix, place + 4)) << 32 | msix.read(device.registers.msix, place)


def write(vm: Vm, slot: u32, offset: u64, size: u32, value: u64) -> None:
    """Aligned dwords and quadwords; smaller ones do not exist (6.8.2) and are dropped."""
    devices = vm.devices
    device = devices.devices[slot] if devices is not None else None
    assert devices is not None and device is not None
    if size < 4 or offset & (size - 1) != 0:
        return
    place: u32 = u32(offset & PAGE_OFFSET)
    msix.write(device.registers.msix, place, u32(value & LOW))
    if size == 8:
        msix.write(device.registers.msix, place + 4, u32(value >> 32))
    interrupts.send_pending(vm, devices, device)
