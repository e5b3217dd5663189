"""Registers of a virtio device on PCI: features, status, queues. The driver may write anything in any order.

Source: virtio 1.1, 2.1 (status), 2.2 (features), 4.1.4.3 (common configuration), 4.1.4.5 (ISR).

| offset | register | a driver writes | what happens |
|---|---|---|---|
| 00, 08 | feature selects | any | words above the second are zero |
| 0C | driver feature | any | kept until FEATURES_OK; unknown bits let FEATURES_OK fail |
| 10, 1A | MSI-X vectors | any | NO_VECTOR if there is no such vector |
| 14 | device status | bits | bits are added; 0 resets, and reads 0 once no request is in flight any more |
| 16 | queue select | any | a queue that does not exist has size 0 |
| 18 | queue size | power of two, at most what was there | else dropped; all of a queue is dropped while it is enabled |
| 1C | queue enable | 1 | pins the ring; one that is not aligned or not RAM breaks the device |
| 20, 28, 30 | descriptors, driver area, device area | any | checked when the queue is enabled |
"""
from __future__ import annotations

from typing import Final

from hypervisor.console import say
from hypervisor.devices.pci_function import VECTORS
from hypervisor.lang import address, text_at, u32, u64
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status
from hypervisor.virtio import interrupts, ring
from hypervisor.virtio.state import DRIVER_OK, NEEDS_RESET, NO_VECTOR, QUEUE_SIZE_MOST, QUEUES, VERSION, Device, Devices, Queue

FEATURES_OK: Final = 8
STATUS_WRITABLE: Final = 0x8F  # ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, FAILED
FEATURE_VERSION_1: Final[u64] = 1 << 32
FEATURES: Final[u64] = ring.FEATURE_INDIRECT | ring.FEATURE_EVENT_INDEX | FEATURE_VERSION_1
LOW: Final[u64] = 0xFFFF_FFFF
COMPLAINTS_MOST: Final = 4  # lines that one device may cost


def reset(device: Device) -> None:
    """As after power-on: nothing negotiated, no queue. No request is in flight."""
    r = device.registers
    r.version = VERSION
    r.accepted = 0
    r.offered_select = 0
    r.accepted_select = 0
    r.status = 0
    r.config_vector = NO_VECTOR
    r.queue_select = 0
    r.interrupt_status = 0
    r.shown = 0
    for index in range(QUEUES):
        ring.detach(device.places[index])
        queue = r.queues[index]
        queue.enabled = False
        queue.size = QUEUE_SIZE_MOST if index < r.queue_count else 0
        queue.vector = NO_VECTOR
        queue.descriptors = 0
        queue.available = 0
        queue.used = 0
        queue.next_available = 0
        queue.next_used = 0
        queue.signalled = 0
        queue.in_flight = 0


def broken(vm: Vm, devices: Devices, device: Device, why: str) -> None:
    """The driver has done what no driver may: the device stands still until it is reset. At most COMPLAINTS_MOST lines."""
    device.registers.status = device.registers.status | NEEDS_RESET
    if device.complaints < COMPLAINTS_MOST:
        device.complaints += 1
        say(f"vm '{text_at(address(vm.name))}': virtio device {device.slot} stands still: {why}")
    if device.registers.status & DRIVER_OK:
        interrupts.of_configuration(vm, devices, device)


def read(device: Device, offset: u32, size: u32) -> u32:
    """Common configuration: 1, 2 or 4 bytes within one register, or a word of a 64-bit one."""
    r = device.registers
    match offset:
        case 0x00:
            return r.offered_select
        case 0x04:
            return word_of(r.offered, r.offered_select)
        case 0x08:
            return r.accepted_select
        case 0x0C:
            return word_of(r.accepted, r.accepted_select)
        case 0x10:
            return r.config_vector
        case 0x12:
            return r.queue_count
        case 0x14:
            return r.status | r.generation << 8 if size == 2 else r.status
        case 0x15:
            return r.generation
        case 0x16:
            return r.queue_select
        case _:
            return read_queue(r.queues[r.queue_select], r.queue_select, offset) if r.queue_select < QUEUES else 0


def word_of(value: u64, number: u32) -> u32:
    """The word of a 64-bit number that a select names."""
    return 0 if number > 1 else u32(value >> (32 * number & 63) & LOW)


def read_queue(queue: Queue, index: u32, offset: u32) -> u32:
    """Registers of the selected queue."""
    match offset:
        case 0x18:
            return queue.size
        case 0x1A:
            return queue.vector
        case 0x1C:
            return 1 if queue.enabled else 0
        case 0x1E:
            return index  # where to notify
        case 0x20:
            return u32(queue.descriptors & LOW)
        case 0x24:
            return u32(queue.descriptors >> 32)
        case 0x28:
            return u32(queue.available & LOW)
        case 0x2C:
            return u32(queue.available >> 32)
        case 0x30:
            return u32(queue.used & LOW)
        case 0x34:
            return u32(queue.used >> 32)
        case _:
            return 0


def write(vm: Vm, vcpu: Vcpu, devices: Devices, device: Device, offset: u32, value: u32) -> Status:
    """Common configuration but device status; `value` is cut to the access's size. WAIT: enabling a queue has to be run again."""
    r = device.registers
    match offset:
        case 0x00:
            r.offered_select = value
        case 0x08:
            r.accepted_select = value
        case 0x0C:
            accept(device, value)
        case 0x10:
            r.config_vector = known_vector(value)
        case 0x16:
            r.queue_select = value & 0xFFFF
        case 0x1A:
            if r.queue_select < r.queue_count:
                r.queues[r.queue_select].vector = known_vector(value)
        case 0x1C:
            if value & 0xFFFF == 1:
                return enable_queue(vm, vcpu, devices, device)
        case _:
            if r.queue_select < r.queue_count and not r.queues[r.queue_select].enabled:
                write_queue(r.queues[r.queue_select], offset, value)
    return Status.OK


def known_vector(value: u32) -> u32:
    """A vector that can be had, or NO_VECTOR."""
    return value & 0xFFFF if value & 0xFFFF < VECTORS else NO_VECTOR


def accept(device: Device, value: u32) -> None:
    """A word of the driver's features."""
    r = device.registers
    if r.status & FEATURES_OK == 0:
        if r.accepted_select == 0:
            r.accepted = r.accepted & ~LOW | value
        elif r.accepted_select == 1:
            r.accepted = r.accepted & LOW | u64(value) << 32


def write_queue(queue: Queue, offset: u32, value: u32) -> None:
    """A queue that exists and is not enabled."""
    match offset:
        case 0x18:
            size: u32 = value & 0xFFFF
            if size != 0 and size & (size - 1) == 0 and size <= QUEUE_SIZE_MOST:
                queue.size = size
        case 0x20:
            queue.descriptors = queue.descriptors & ~LOW | value
        case 0x24:
            queue.descriptors = queue.descriptors & LOW | u64(value) << 32
        case 0x28:
            queue.available = queue.available & ~LOW | value
        case 0x2C:
            queue.available = queue.available & LOW | u64(value) << 32
        case 0x30:
            queue.used = queue.used & ~LOW | value
        case 0x34:
            queue.used = queue.used & LOW | u64(value) << 32
        case _:
            pass


def enable_queue(vm: Vm, vcpu: Vcpu, devices: Devices, device: Device) -> Status:
    """Pin the selected queue's ring and let it be used. WAIT."""
    r = device.registers
    if r.queue_select >= r.queue_count or r.status & FEATURES_OK == 0 or r.status & NEEDS_RESET != 0:
        return Status.OK
    queue = r.queues[r.queue_select]
    if queue.enabled:
        return Status.OK
    status = ring.attach(vm, vcpu, queue, device.places[r.queue_select])
    if status == Status.OK:
        queue.enabled = True
    elif status != Status.WAIT:
        broken(vm, devices, device, "a ring that is not aligned, or not in memory")
    return Status.WAIT if status == Status.WAIT else Status.OK


def add_status(device: Device, value: u32) -> None:
    """The driver says how far it is; FEATURES_OK only if it accepted nothing that was not offered, and version 1."""
    r = device.registers
    added: u32 = value & STATUS_WRITABLE
    if added & FEATURES_OK != 0 and (r.accepted & ~r.offered != 0 or r.accepted & FEATURE_VERSION_1 == 0):
        added = added & ~FEATURES_OK
    if (r.status | added) & FEATURES_OK == 0:
        added = added & ~DRIVER_OK
    r.status = r.status | added


def read_interrupt_status(device: Device) -> u32:
    """ISR: reading it takes it away; the line is to be updated."""
    value: u32 = device.registers.interrupt_status
    device.registers.interrupt_status = 0
    return value
