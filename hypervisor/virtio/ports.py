"""A VM's PCI ports: configuration (CF8, CFC-CFF), and the I/O ports behind base address register 0 of its virtio functions.

Drivers of virtio 1.x accept registers in I/O space; an OUT is cheaper here than a write to memory, which must be decoded.
PCI configuration can reach them too (virtio 1.1, 4.1.4.7).
"""
from __future__ import annotations

from typing import Final

from hypervisor.devices import pci_function, pci_host
from hypervisor.devices.pci_function import DEVICE_OFFSET, IO_BYTES, ISR_OFFSET, NOTIFY_MULTIPLIER, NOTIFY_OFFSET
from hypervisor.devices.pci_host import NO_SLOT, SLOTS, size_mask
from hypervisor.lang import u32
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status
from hypervisor.virtio import devices as device_table
from hypervisor.virtio import interrupts, service, transport
from hypervisor.virtio.state import Devices

CONFIG_ADDRESS: Final = 0xCF8
CONFIG_DATA: Final = 0xCFC
CONFIG_END: Final = 0xD00
STATUS_OFFSET: Final = 0x14
IO_FIRST: Final = 0x1000  # base addresses below are the platform's own ports


def slot_at(devices: Devices, port: u32) -> u32:
    """The device number whose BAR 0 a port belongs to; NO_SLOT."""
    for slot in range(1, SLOTS):
        if devices.devices[slot] is not None and pci_function.io_base(devices.host.functions[slot]) == port & ~(IO_BYTES - 1):
            return u32(slot)
    return NO_SLOT


def is_mine(devices: Devices, port: u32, size: u32) -> bool:
    """Whether an access belongs here; the reset control at CF9 does not."""
    if port < CONFIG_END:
        return port >= CONFIG_DATA or port == CONFIG_ADDRESS and size == 4
    return port >= IO_FIRST and slot_at(devices, port) != NO_SLOT


def read(vm: Vm, devices: Devices, port: u32, size: u32) -> u32:
    """IN."""
    if port == CONFIG_ADDRESS:
        return devices.host.address
    if port >= CONFIG_END:
        return read_bar(vm, devices, slot_at(devices, port), port & (IO_BYTES - 1), size)
    if through_window(devices):
        function = devices.host.functions[pci_host.selected_slot(devices.host)]
        return read_bar(vm, devices, pci_host.selected_slot(devices.host), function.config[pci_function.WINDOW_OFFSET],
                        function.config[pci_function.WINDOW_LENGTH])
    return pci_host.read_data(devices.host, port & 3, size)


def write(vm: Vm, vcpu: Vcpu, devices: Devices, port: u32, size: u32, value: u32) -> Status:
    """OUT. WAIT: run it again."""
    if port == CONFIG_ADDRESS:
        pci_host.write_address(devices.host, value)
        return Status.OK
    if port >= CONFIG_END:
        return write_bar(vm, vcpu, devices, slot_at(devices, port), port & (IO_BYTES - 1), value & size_mask(size))
    if through_window(devices):
        slot = pci_host.selected_slot(devices.host)
        config = devices.host.functions[slot].config
        length: u32 = config[pci_function.WINDOW_LENGTH]
        return write_bar(vm, vcpu, devices, slot, config[pci_function.WINDOW_OFFSET], value & size_mask(length))
    pci_host.write_data(devices.host, port & 3, size, value)
    slot = pci_host.selected_slot(devices.host)
    found = devices.devices[slot] if slot != NO_SLOT else None
    if found is not None:
        interrupts.update_line(vm, devices, found)
        interrupts.send_pending(vm, devices, found)
    return Status.OK


def through_window(devices: Devices) -> bool:
    """Whether CONFIG_DATA is now the window of VIRTIO_PCI_CAP_PCI_CFG, and shows a place in BAR 0."""
    slot = pci_host.selected_slot(devices.host)
    if slot in (0, NO_SLOT) or pci_host.selected_register(devices.host) != pci_function.WINDOW_DATA:
        return False
    config = devices.host.functions[slot].config
    length: u32 = config[pci_function.WINDOW_LENGTH]
    offset: u32 = config[pci_function.WINDOW_OFFSET]
    return config[pci_function.WINDOW_BAR] & 0xFF == 0 and length in (1, 2, 4) and offset <= IO_BYTES - length and offset % length == 0


def read_bar(vm: Vm, devices: Devices, slot: u32, offset: u32, size: u32) -> u32:
    """A register of a function."""
    device = devices.devices[slot]
    assert device is not None
    value: u32 = 0
    if offset == STATUS_OFFSET:
        device_table.settle(device)
    if offset < ISR_OFFSET:
        value = transport.read(device, offset, size)
    elif offset == ISR_OFFSET:
        value = transport.read_interrupt_status(device)
        interrupts.update_line(vm, devices, device)
    elif DEVICE_OFFSET <= offset < NOTIFY_OFFSET:
        value = device_table.read_configuration(device, offset - DEVICE_OFFSET & ~3) >> (8 * (offset & 3))
    return value & size_mask(size)


def write_bar(vm: Vm, vcpu: Vcpu, devices: Devices, slot: u32, offset: u32, value: u32) -> Status:
    """A register of a function; `value` is cut to the access's size. WAIT."""
    device = devices.devices[slot]
    assert device is not None
    if offset >= NOTIFY_OFFSET:
        return service.notified(vm, vcpu, devices, device, (offset - NOTIFY_OFFSET) // NOTIFY_MULTIPLIER)
    if offset == STATUS_OFFSET:
        if value & 0xFF == 0:
            device_table.reset(device)
            interrupts.update_line(vm, devices, device)
        else:
            transport.add_status(device, value & 0xFF)
        return Status.OK
    if offset < ISR_OFFSET:
        return transport.write(vm, vcpu, devices, device, offset, value)
    return Status.OK
