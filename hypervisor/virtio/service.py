"""Serving the queues of virtio devices: a bounded number of chains a turn, on notification and when requests complete."""
from __future__ import annotations

from typing import Final

from hypervisor.lang import u32
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status
from hypervisor.virtio import entropy_device, interrupts, ring, transport
from hypervisor.virtio.ring import Chain
from hypervisor.virtio.state import Device, DeviceKind, Devices

TURN_CHAINS: Final = 8

chain: Final = Chain()  # the one being looked at


def turn(vm: Vm, vcpu: Vcpu, devices: Devices, device: Device, index: u32) -> Status:
    """Take chains from a queue until it is empty. WAIT: run the exit again: memory is awaited, or the turn is over and there
    are more. Below 40 k instructions."""
    if not transport.live(device, index):
        return Status.OK
    queue = device.registers.queues[index]
    place = device.places[index]
    features = device.registers.accepted
    status = Status.OK
    ring.need_no_notification(place, features)
    for _ in range(TURN_CHAINS):
        status = ring.take(vm, queue, place, features, chain)
        if status == Status.OK:
            status = handle(vm, vcpu, device, index)
        elif status == Status.NOT_FOUND and ring.ask_for_notification(queue, place, features):
            status = Status.OK
        if status != Status.OK:
            break
    signal(vm, devices, device, index)
    match status:
        case Status.OK | Status.WAIT:
            return Status.WAIT
        case Status.NOT_FOUND:
            return Status.OK
        case _:
            transport.broken(vm, devices, device, "a broken ring")
            return Status.OK


def handle(vm: Vm, vcpu: Vcpu, device: Device, index: u32) -> Status:
    """The chain by the device's kind. WAIT, NO_MEMORY, BUSY: it was not taken; BAD_ARGUMENT."""
    match device.registers.kind:
        case DeviceKind.ENTROPY:
            return entropy_device.handle(vcpu, vm, device, index, chain)
        case _:
            return Status.BAD_ARGUMENT


def signal(vm: Vm, devices: Devices, device: Device, index: u32) -> None:
    """Interrupt the driver for the chains it was given back, if it wants that."""
    queue = device.registers.queues[index]
    if queue.next_used != queue.signalled and ring.interrupt_due(queue, device.places[index], device.registers.accepted):
        interrupts.of_queue(vm, devices, device)
