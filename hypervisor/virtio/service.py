"""Serving the queues of virtio devices: a bounded number of chains a turn, on notification and when requests complete.

Notifications are not asked for while a block queue has NOTIFY_BELOW chains or more in flight: when one of them completes,
what was offered meanwhile is found.
"""
from __future__ import annotations

from typing import Final

from hypervisor import board
from hypervisor.block.model import Outcome, VirtualDisk
from hypervisor.cpu import owe
from hypervisor.events import notify
from hypervisor.lang import address, u32, u64
from hypervisor.model import WORK_INJECT, Vcpu, VcpuState, Vm, VmState
from hypervisor.status import Status
from hypervisor.virtio import block_device, console_device, entropy_device, interrupts, liveness, ring, transport
from hypervisor.virtio.ring import Chain
from hypervisor.virtio.state import CONSOLE_RECEIVE, Device, DeviceKind, Devices

# A turn's length in units of about 1,000 instructions: two for a chain, one for 32 KiB of it, one for each frame that is given for it.
TURN_UNITS: Final = 16
COMPLETION_UNITS: Final = 3
NOTIFY_BELOW: Final = 8

chain: Final = Chain()  # the one being looked at


def notified(vm: Vm, vcpu: Vcpu, devices: Devices, device: Device, index: u32) -> Status:
    """The driver has offered chains in a queue. WAIT: run the exit again. Below 45 k instructions."""
    device.notifications += 1
    return Status.WAIT if serve(vm, vcpu, devices, device, index, TURN_UNITS) else Status.OK


def serve(vm: Vm, vcpu: Vcpu | None, devices: Devices, device: Device, index: u32, most: u32) -> bool:
    """Take chains from a queue for `most` units. True: call again: memory is awaited, or there may be more. Without a vCPU nobody is
    given frames or can wait for them: the queue is left to `feed`."""
    if not liveness.live(device, index):
        return False
    queue = device.registers.queues[index]
    place = device.places[index]
    features = device.registers.accepted
    status = Status.OK
    spent: u64 = 0
    ring.need_no_notification(place, features)
    while spent < most:
        before: u64 = vm.private_frames
        status = ring.take(vm, queue, place, features, chain)
        spent += 1
        if status == Status.OK:
            status = handle(vm, vcpu, device, index)
            spent += units(device, index) + max(vm.private_frames, before) - before
        elif status == Status.NOT_FOUND and queue.in_flight < NOTIFY_BELOW and ring.ask_for_notification(queue, place, features):
            status = Status.OK
        if status != Status.OK:
            break
    signal(vm, devices, device, index)
    match status:
        case Status.OK | Status.WAIT:
            return True
        case Status.BUSY:
            device.stalled = device.stalled | 1 << (index & 31)  # `room` goes on
        case Status.NO_MEMORY:
            device.stalled = device.stalled | 1 << (index & 31)
            ask_to_feed(vm, devices)
        case Status.BAD_ARGUMENT:
            transport.broken(vm, devices, device, "its driver broke a ring")
        case _:
            pass
    return False


def handle(vm: Vm, vcpu: Vcpu | None, device: Device, index: u32) -> Status:
    """The chain by the device's kind. WAIT, NO_MEMORY, BUSY: it was not taken; BAD_ARGUMENT."""
    match device.registers.kind:
        case DeviceKind.BLOCK:
            return block_device.handle(vm, vcpu, device, index, chain)
        case DeviceKind.ENTROPY:
            return entropy_device.handle(vm, vcpu, device, index, chain)
        case DeviceKind.CONSOLE:
            return console_device.handle(vm, vcpu, device, index, chain)
        case _:
            return Status.BAD_ARGUMENT


def units(device: Device, index: u32) -> u64:
    """What the chain costs beside being taken: a console's bytes are shown one by one."""
    if device.registers.kind == DeviceKind.CONSOLE and index != CONSOLE_RECEIVE:
        return 1 + min(chain.read_bytes, console_device.CHUNK) * TURN_UNITS // console_device.CHUNK
    return 1 + ((chain.read_bytes + chain.write_bytes) >> 15)


def signal(vm: Vm, devices: Devices, device: Device, index: u32) -> None:
    """Interrupt the driver for the chains it was given back, if it wants that."""
    queue = device.registers.queues[index]
    if queue.next_used != queue.signalled and ring.interrupt_due(queue, device.places[index], device.registers.accepted):
        interrupts.of_queue(vm, devices, device, index)


def completed(disk: VirtualDisk, cookie: u64, outcome: Outcome) -> None:
    """A request that block_device submitted has ended: answer its chain, and take what was offered meanwhile."""
    vm = disk.vm
    assert vm is not None
    devices = vm.devices
    assert devices is not None
    device = devices.devices[cookie >> 32]
    assert device is not None
    index: u32 = u32(cookie >> 16 & 0xFFFF)
    block_device.ended(device, cookie, outcome)
    signal(vm, devices, device, index)
    device.stalled = device.stalled | 1 << (index & 31)
    serve_stalled(vm, devices, device)


def serve_stalled(vm: Vm, devices: Devices, device: Device) -> None:
    """Without a vCPU: a few chains. If there are more and nothing is in flight that would go on, a vCPU does."""
    stalled: u32 = device.stalled
    device.stalled = 0
    for index in range(device.registers.queue_count):
        if stalled >> (index & 31) & 1 != 0 and serve(vm, None, devices, device, u32(index), COMPLETION_UNITS) \
                and device.registers.queues[index].in_flight == 0:
            device.stalled = device.stalled | 1 << (index & 31)
            ask_to_feed(vm, devices)


def room(disk: VirtualDisk) -> None:
    """The block layer takes requests of this disk again."""
    vm = disk.vm
    devices = vm.devices if vm is not None else None
    if vm is None or devices is None:
        return
    for device in devices.devices:
        if device is not None and device.registers.kind == DeviceKind.BLOCK and device.disk == address(disk):
            serve_stalled(vm, devices, device)


def typed(vm: Vm) -> None:
    """Something was typed for the VM: its virtio console's driver is given it, if there is one; else it is the board's."""
    console = liveness.console(vm)
    devices = vm.devices
    if console is None or devices is None:
        board.typed(vm)
    elif vm.state == VmState.RUNNING:  # a paused one's devices stand still: it is told when it goes on
        serve_stalled(vm, devices, console)


def ask_to_feed(vm: Vm, devices: Devices) -> None:
    """Some queue waits for what only a vCPU can wait for: let one run, and do it on its way."""
    devices.hungry = True
    first = vm.vcpus[0]
    if first is not None:
        notify(first)


def feed(vcpu: Vcpu, vm: Vm, devices: Devices) -> None:
    """Before a vCPU runs: serve the queues that wait for memory. It may be put to sleep until there is some, and comes again."""
    devices.hungry = False
    for device in devices.devices:
        if device is not None and device.stalled != 0:
            stalled: u32 = device.stalled
            device.stalled = 0
            for index in range(device.registers.queue_count):
                if stalled >> (index & 31) & 1 != 0 and serve(vm, vcpu, devices, device, u32(index), TURN_UNITS):
                    device.stalled = device.stalled | 1 << (index & 31)
                    devices.hungry = True
    if devices.hungry and vcpu.state == VcpuState.RUNNABLE:
        owe(WORK_INJECT)
