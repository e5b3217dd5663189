"""Interrupts of virtio devices: by their line or, where the driver has switched them on, by messages (MSI-X).

A PV guest, which has no interrupt controller, gets EVENT_DEVICE in place of the line.
"""
from typing import Final

from hypervisor import apic_bus, board
from hypervisor.abi import EVENT_DEVICE
from hypervisor.devices import msix, pci_function
from hypervisor.devices.pci_function import VECTORS
from hypervisor.events import raise_event
from hypervisor.lang import u32, u64
from hypervisor.model import Vm
from hypervisor.virtio.state import Device, Devices

QUEUE_INTERRUPT: Final = 1  # virtio 1.1, 4.1.4.5: ISR status
CONFIG_INTERRUPT: Final = 2


def of_queue(vm: Vm, devices: Devices, device: Device, index: u32) -> None:
    """Chains of a queue were given back, and the driver wants to know."""
    interrupt(vm, devices, device, device.registers.queues[index].vector, QUEUE_INTERRUPT)


def of_configuration(vm: Vm, devices: Devices, device: Device) -> None:
    """The device's configuration or status has changed."""
    interrupt(vm, devices, device, device.registers.config_vector, CONFIG_INTERRUPT)


def interrupt(vm: Vm, devices: Devices, device: Device, vector: u32, bit: u32) -> None:
    """By message if those are on (a vector that is none: nobody wants to know), else by a bit of the ISR, and the line with it."""
    device.interrupts += 1
    f = devices.host.functions[device.slot]
    if not pci_function.msix_enabled(f):
        device.registers.interrupt_status = device.registers.interrupt_status | bit
        update_line(vm, devices, device)
    elif vector < VECTORS and msix.post(device.registers.msix, vector, pci_function.msix_masked(f)):
        send(vm, device, vector)


def send(vm: Vm, device: Device, vector: u32) -> None:
    """One message, as the driver has it in the table; what it wrote there may be anything."""
    words = device.registers.msix.words
    apic_bus.msi(vm, u64(words[4 * vector + 1]) << 32 | words[4 * vector], words[4 * vector + 2])


def send_pending(vm: Vm, devices: Devices, device: Device) -> None:
    """The table, or what masks all of it, has changed."""
    f = devices.host.functions[device.slot]
    if not pci_function.msix_enabled(f) or pci_function.msix_masked(f):
        return
    vector = msix.take(device.registers.msix)
    while vector != VECTORS:
        send(vm, device, vector)
        vector = msix.take(device.registers.msix)


def update_line(vm: Vm, devices: Devices, device: Device) -> None:
    """The device's ISR, or what allows it the line, has changed: carry the line, which devices share, to where it ends."""
    f = devices.host.functions[device.slot]
    pci_function.show_line(f, device.registers.interrupt_status != 0)
    level: bool = wants_line(devices, device)
    if vm.platform is None:
        first = vm.vcpus[0]
        if level and first is not None:
            raise_event(first, EVENT_DEVICE)
        return
    for other in devices.devices:
        if other is not None and other.irq == device.irq and wants_line(devices, other):
            level = True
    board.set_line(vm, device.irq, level)


def wants_line(devices: Devices, device: Device) -> bool:
    """Whether the device pulls its line."""
    return device.registers.interrupt_status != 0 and pci_function.line_allowed(devices.host.functions[device.slot])
