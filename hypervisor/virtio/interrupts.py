"""Interrupts of virtio devices: by their line or, where the driver has switched them on, by messages (MSI-X).

A PV guest, which has no interrupt controller, gets EVENT_DEVICE in place of the line.
"""
from typing import Final

from hypervisor import board
from hypervisor.abi import EVENT_DEVICE
from hypervisor.devices import pci_function
from hypervisor.events import raise_event
from hypervisor.lang import u32
from hypervisor.model import Vm
from hypervisor.virtio.state import Device, Devices

QUEUE_INTERRUPT: Final = 1  # virtio 1.1, 4.1.4.5: ISR status
CONFIG_INTERRUPT: Final = 2


def of_queue(vm: Vm, devices: Devices, device: Device) -> None:
    """Chains were given back, and the driver wants to know."""
    device.interrupts += 1
    set_status(vm, devices, device, QUEUE_INTERRUPT)


def of_configuration(vm: Vm, devices: Devices, device: Device) -> None:
    """The device's configuration or status has changed."""
    device.interrupts += 1
    set_status(vm, devices, device, CONFIG_INTERRUPT)


def set_status(vm: Vm, devices: Devices, device: Device, bit: u32) -> None:
    """Raise a bit of the ISR, and the line with it."""
    device.registers.interrupt_status = device.registers.interrupt_status | bit
    update_line(vm, devices, device)


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
