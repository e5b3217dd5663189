"""The PCI bus of a VM: made with its host bridge and virtio devices, reset, taken apart."""
from __future__ import annotations

from typing import Final

from hypervisor.addresses import PAGE_SIZE, Hva, hpa_of, hva_of
from hypervisor.block import virtual_disk
from hypervisor.block.model import DISKS_A_VM, VirtualDisk
from hypervisor.devices import msix, pci_function, pci_host
from hypervisor.devices.pci_host import SLOTS
from hypervisor.lang import address, at, sizeof, u32, u64
from hypervisor.memory import frames
from hypervisor.model import Vm
from hypervisor.status import Status
from hypervisor.virtio import block_device, transport
from hypervisor.virtio.state import BLOCK_QUEUES, NEEDS_RESET, QUEUE_SIZE_MOST, Device, DeviceKind, Devices, Record

DEVICES_PAGES: Final = (sizeof(Devices) + PAGE_SIZE - 1) // PAGE_SIZE
RECORD_PAGES: Final = (BLOCK_QUEUES * QUEUE_SIZE_MOST * sizeof(Record) + PAGE_SIZE - 1) // PAGE_SIZE
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


def add(vm: Vm, kind: DeviceKind, features: u64, queue_count: u32) -> Device | None:
    """One more device, reset; None: no memory, or no slot is left."""
    devices = vm.devices
    assert devices is not None
    slot: u32 = 1
    while slot < SLOTS and devices.devices[slot] is not None:
        slot += 1
    if slot == SLOTS:
        return None
    page = frames.alloc_contiguous_zeroed(DEVICE_PAGES)
    if page == 0:
        return None
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
    if vm.platform is not None:  # there are local APICs to take messages
        pci_function.add_msix(devices.host.functions[slot], MEMORY_PLACE + slot * pci_function.MEMORY_BYTES)
    devices.devices[slot] = device
    return device


def destroy(vm: Vm) -> None:
    """Give back the bus and its devices; nothing is in flight."""
    devices = vm.devices
    if devices is None:
        return
    for slot in range(SLOTS):
        device = devices.devices[slot]
        if device is not None:
            if device.records != 0:
                drained = block_device.cancel(device)
                assert drained, "the VM's disks are quiet"
                frames.free_contiguous(hpa_of(device.records), RECORD_PAGES)
                vm.overhead_frames -= RECORD_PAGES
            transport.reset(device)
            frames.free_contiguous(hpa_of(Hva(address(device))), DEVICE_PAGES)
            vm.overhead_frames -= DEVICE_PAGES
    vm.devices = None
    frames.free_contiguous(hpa_of(Hva(address(devices))), DEVICES_PAGES)
    vm.overhead_frames -= DEVICES_PAGES


def add_disks(vm: Vm) -> Status:
    """A block device for each disk that the VM has. NO_MEMORY; QUOTA."""
    for index in range(DISKS_A_VM):
        disk = virtual_disk.of(vm, u32(index))
        if disk is None:
            return Status.OK
        if vm.devices is None:  # a PV guest has a bus if it has disks
            status = create(vm)
            if status != Status.OK:
                return status
        status = add_disk(vm, disk)
        if status != Status.OK:
            return status
    return Status.OK


def add_disk(vm: Vm, disk: VirtualDisk) -> Status:
    """A block device for one disk, a queue for each vCPU. NO_MEMORY; QUOTA."""
    records = frames.alloc_contiguous_zeroed(RECORD_PAGES)
    if records == 0:
        return Status.NO_MEMORY
    made = add(vm, DeviceKind.BLOCK, block_device.features(disk), min(vm.vcpu_count, BLOCK_QUEUES))
    if made is None:
        frames.free_contiguous(records, RECORD_PAGES)
        return Status.NO_MEMORY
    vm.overhead_frames += RECORD_PAGES
    made.records = hva_of(records)
    made.disk = Hva(address(disk))
    return Status.OK


def reset(device: Device) -> None:
    """The driver resets the device: at once, or when nothing is in flight any more (settle)."""
    device.registers.status = NEEDS_RESET  # reads so until then, and no queue is served
    device.resetting = True
    settle(device)


def settle(device: Device) -> None:
    """A reset that waited may be over."""
    if device.resetting and (device.registers.kind != DeviceKind.BLOCK or block_device.cancel(device)):
        device.resetting = False
        device.stalled = 0
        transport.reset(device)


def read_configuration(device: Device, offset: u32) -> u32:
    """The device's own configuration: the dword at an aligned offset."""
    return block_device.read_configuration(device, offset) if device.registers.kind == DeviceKind.BLOCK else 0
