"""The PCI bus of a VM: made with its host bridge and virtio devices, reset, taken apart."""
from __future__ import annotations

from typing import Final

from hypervisor.addresses import PAGE_SIZE, Hva, hpa_of, hva_of
from hypervisor.devices import msix, pci_function, pci_host
from hypervisor.devices.pci_host import SLOTS
from hypervisor.lang import address, at, sizeof, u32, u64
from hypervisor.memory import frames
from hypervisor.model import Vm
from hypervisor.status import Status
from hypervisor.virtio import transport
from hypervisor.virtio.state import Device, DeviceKind, Devices

DEVICES_PAGES: Final = (sizeof(Devices) + PAGE_SIZE - 1) // PAGE_SIZE
DEVICE_PAGES: Final = (sizeof(Device) + PAGE_SIZE - 1) // PAGE_SIZE
# Where firmware would have put base addresses; loaders/dsdt.asl names the ranges.
IO_PLACE: Final = 0xC000
MEMORY_PLACE: Final[u32] = 0xE000_0000
IRQS: Final = 2
IRQ_FIRST: Final = 10  # lines 10 and 11, in turn
CLASS_SCSI: Final[u32] = 0x01_0000  # as other virtio block devices have it
CLASS_OTHER: Final[u32] = 0xFF_0000


def create(vm: Vm) -> Status:
    """A bus with the host bridge alone. NO_MEMORY."""
    assert vm.devices is None
    page = frames.alloc_contiguous_zeroed(DEVICES_PAGES)
    if page == 0:
        return Status.NO_MEMORY
    vm.overhead_frames += DEVICES_PAGES
    made = at(Devices, hva_of(page))
    pci_host.reset(made.host)
    vm.devices = made
    return Status.OK


def add(vm: Vm, kind: DeviceKind, features: u64, queue_count: u32) -> Status:
    """One more device, reset. NO_MEMORY; QUOTA: no slot is left."""
    devices = vm.devices
    assert devices is not None
    slot: u32 = 1
    while slot < SLOTS and devices.devices[slot] is not None:
        slot += 1
    if slot == SLOTS:
        return Status.QUOTA
    page = frames.alloc_contiguous_zeroed(DEVICE_PAGES)
    if page == 0:
        return Status.NO_MEMORY
    vm.overhead_frames += DEVICE_PAGES
    device = at(Device, hva_of(page))
    device.slot = slot
    device.irq = IRQ_FIRST + slot % IRQS
    device.registers.kind = kind
    device.registers.offered = features | transport.FEATURES
    device.registers.queue_count = queue_count
    msix.reset(device.registers.msix)
    transport.reset(device)
    pci_function.make_virtio(devices.host.functions[slot], kind, CLASS_SCSI if kind == DeviceKind.BLOCK else CLASS_OTHER,
                             IO_PLACE + slot * pci_function.IO_BYTES, device.irq)
    devices.devices[slot] = device
    return Status.OK


def destroy(vm: Vm) -> None:
    """Give back the bus and its devices; nothing is in flight."""
    devices = vm.devices
    if devices is None:
        return
    for slot in range(SLOTS):
        device = devices.devices[slot]
        if device is not None:
            transport.reset(device)
            frames.free_contiguous(hpa_of(Hva(address(device))), DEVICE_PAGES)
            vm.overhead_frames -= DEVICE_PAGES
    vm.devices = None
    frames.free_contiguous(hpa_of(Hva(address(devices))), DEVICES_PAGES)
    vm.overhead_frames -= DEVICES_PAGES


def reset(device: Device) -> None:
    """The driver resets the device: at once, or when nothing is in flight any more (settle)."""
    transport.reset(device)


def settle(device: Device) -> None:
    """The driver reads the status: a reset that waited may be over."""


def read_configuration(device: Device, offset: u32) -> u32:
    """The device's own configuration, from a byte on."""
    return 0
