"""Which of the machine's PCI devices are disks, and how they interrupt. Boot only.

A disk interrupts by MSI-X if it can, else by the pin that the firmware routed to an input of the 8259s (Interrupt Line), where
the MADT says that this input arrives at the I/O APIC.
"""
from typing import Final

from hypervisor import phase
from hypervisor.arch_x86 import host_interrupts, ioapic, lapic
from hypervisor.block import host_disk
from hypervisor.block.model import HostDisk, disks
from hypervisor.drivers import msix, pci, virtio_blk
from hypervisor.drivers.pci import NO_LINE, Device
from hypervisor.lang import char_at, u8, u32, u64

PCI_INPUTS: Final = 16


def find_all() -> None:
    """Scan, and start every disk that there is a driver for; those that cannot be used are said and left alone."""
    pci.scan()
    virtio: u64 = 0
    for i in range(pci.found.count):
        device = pci.devices[i]
        if virtio_blk.matches(device):
            host = host_disk.add()
            if host is None:
                phase.found("disks", "too many, or no memory: the others are left alone")
                return
            host_disk.set_name(host, "virtio", virtio)
            virtio += 1
            pci.switch_on(device)
            problem = virtio_blk.init(host, u32(i))
            if char_at(problem, 0) == 0 and not route(device):
                problem = "it has neither MSI-X nor an interrupt line that arrives"
            settle(host, device, problem)


def settle(host: HostDisk, device: Device, problem: str) -> None:
    """A disk that cannot be used is dropped."""
    if char_at(problem, 0) != 0:
        phase.found(f"disk {host_disk.name(host)}", f"left alone: {problem}")
        pci.cut_off(device)
        host_disk.drop_last()


def route(device: Device) -> bool:
    """Let the device interrupt at DISK_VECTOR; False: there is no way."""
    if msix.enable(device, host_interrupts.DISK_VECTOR, lapic.apic_id()):
        return True
    if device.pin == 0 or device.line == 0 or device.line >= PCI_INPUTS:
        return False
    return ioapic.route_isa(u8(device.line), host_interrupts.DISK_VECTOR)
