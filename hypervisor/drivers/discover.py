"""Which of the machine's PCI devices are disks, and how they interrupt. Boot only.

A disk interrupts by MSI-X if it can, else by the pin that the firmware routed to an input of the 8259s (Interrupt Line), where
the MADT says that this input arrives at the I/O APIC.
"""
from typing import Final

from hypervisor import phase
from hypervisor.arch_x86 import host_interrupts, ioapic, lapic
from hypervisor.block import host_disk
from hypervisor.block.model import HostDisk
from hypervisor.drivers import ata, msix, nvme, pci, virtio_blk
from hypervisor.drivers.pci import Device
from hypervisor.lang import char_at, u8, u32, u64

PCI_INPUTS: Final = 16
NO_INTERRUPT: Final = "it has neither MSI-X nor an interrupt line that arrives"


def find_all() -> None:
    """Scan, and start every disk that there is a driver for; those that cannot be used are said and left alone."""
    pci.scan()
    virtio: u64 = 0
    nvmes: u64 = 0
    channels: u32 = 0
    for i in range(pci.found.count):
        device = pci.devices[i]
        if virtio_blk.matches(device):
            host = add("virtio", virtio)
            virtio += 1
            if host is not None:
                pci.switch_on(device)
                problem = virtio_blk.init(host, u32(i))
                if char_at(problem, 0) == 0 and not route(device):
                    problem = NO_INTERRUPT
                if not settle(host, problem):
                    pci.cut_off(device)
        elif nvme.matches(device):
            host = add("nvme", nvmes)
            nvmes += 1
            if host is not None:
                pci.switch_on(device)
                entry = msix.enable(device, host_interrupts.DISK_VECTOR, lapic.apic_id())
                if not settle(host, nvme.init(host, u32(i), entry) if entry != 0 or route(device) else NO_INTERRUPT):
                    pci.cut_off(device)
        elif ata.matches(device) and channels + ata.CHANNELS <= ata.MAX_CHANNELS:
            pci.switch_on(device)
            for index in range(ata.CHANNELS):
                find_drives(u32(i), channels, u32(index))
                channels += 1


def find_drives(device_index: u32, number: u32, index: u32) -> None:
    """The ATA disks on one channel of a controller."""
    device = pci.devices[device_index]
    problem = ata.init_channel(number, device_index, index)
    routed = False
    first: HostDisk | None = None
    for drive in range(ata.DRIVES):
        if char_at(problem, 0) == 0 and ata.identify(number, u32(drive)):
            host = add("ata", number * ata.DRIVES + drive)
            if host is not None:
                what = ata.init(host, number, u32(drive))
                if not routed:
                    irq: u8 = 15 if index != 0 else 14
                    routed = route(device) if ata.is_native(device, index) else ioapic.route_isa(irq, host_interrupts.DISK_VECTOR)
                if settle(host, what if routed else NO_INTERRUPT):
                    if first is not None:
                        first.shares = True
                        host.shares = True
                    first = host
    if char_at(problem, 0) != 0:
        phase.found("disks", f"IDE channel {number} is left alone: {problem}")


def add(prefix: str, number: u64) -> HostDisk | None:
    """A disk to be filled, named; None, and said so: there is no place for it."""
    host = host_disk.add()
    if host is None:
        phase.found("disks", "too many, or no memory: one is left alone")
        return None
    host_disk.set_name(host, prefix, number)
    return host


def settle(host: HostDisk, problem: str) -> bool:
    """Keep a disk, or drop one that cannot be used."""
    if char_at(problem, 0) == 0:
        return True
    phase.found(f"disk {host_disk.name(host)}", f"left alone: {problem}")
    host_disk.drop_last()
    return False


def route(device: Device) -> bool:
    """Let the device interrupt at DISK_VECTOR; False: there is no way."""
    if msix.enable(device, host_interrupts.DISK_VECTOR, lapic.apic_id()) != 0:
        return True
    if device.pin == 0 or device.line == 0 or device.line >= PCI_INPUTS:
        return False
    return ioapic.route_isa(u8(device.line), host_interrupts.DISK_VECTOR)
