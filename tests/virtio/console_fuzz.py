"""A hostile driver of the virtio console, at its registers and rings, beside a host that takes what is shown when it likes. In the subset:
interpreted, compiled, sanitized. What must hold whatever the driver does is looked at; chains are mostly such as the device takes.
"""
from __future__ import annotations

from typing import Final

from guest_pv_drivers import broken_rings
from guest_pv_drivers.broken_rings import draw, maker
from hypervisor import guest_console
from hypervisor.arch_x86.intrinsics import store_u16
from hypervisor.channel import consoles
from hypervisor.devices import pci_function
from hypervisor.lang import address, struct, u8, u32, u64, wrap_u32, wrap_u64
from hypervisor.model import Vcpu, VcpuState, Vm
from hypervisor.status import Status
from hypervisor.virtio import devices, ports, service, transport
from hypervisor.virtio.state import CONSOLE_QUEUES, CONSOLE_RECEIVE, NEEDS_RESET, QUEUE_SIZE_MOST, Device, DeviceKind
from tests.virtio.ring_fuzz import start_maker

PARTS: Final[u64] = 0x2F80  # descriptors, guest-physical; the driver area 0x1040 behind, the device area 0x1F80: all but the first cross a page
STRIDE: Final[u64] = 0x4000  # to those of the next queue
NOTIFY: Final = 0xC0
STATUS: Final = 0x14
RUNS_MOST: Final = 4096  # of one exit, each a piece of what is offered: 35 KiB at 128 bytes a piece, and more
VERSION_1: Final = 1  # bit 32 of the features
STARTED: Final = 15  # device status: ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK


@struct
class Run:
    """The driver's side, and what came of it."""

    base: u32  # of the device's ports
    offered0: u32  # in each queue
    offered1: u32
    starts: u64
    typed: u64
    waits: u64  # for the host
    broken: u64
    wrong: u64  # what may not be


run: Final = Run()


def begin(vm: Vm, vcpu: Vcpu, seed: u64, shift: u64) -> Status:
    """Give the VM a console; start_maker has the arguments."""
    start_maker(vm, seed, shift)
    vm.virtio_console = True
    vcpu.on_cpu = True
    run.starts = 0
    run.typed = 0
    run.waits = 0
    run.broken = 0
    run.wrong = 0
    status = devices.create(vm)
    if status != Status.OK:
        return status
    made = devices.add(vm, DeviceKind.CONSOLE, 0, CONSOLE_QUEUES)
    bus = vm.devices
    if made is None or bus is None:
        return Status.NO_MEMORY
    run.base = pci_function.io_base(bus.host.functions[made.slot])
    start(vm, vcpu)
    return Status.OK


def console_of(vm: Vm) -> Device:
    """The device."""
    bus = vm.devices
    assert bus is not None
    made = bus.devices[1]
    assert made is not None
    return made


def out(vm: Vm, vcpu: Vcpu, offset: u32, size: u32, value: u32) -> None:
    """OUT, run again as long as it asks for that; the host takes what is shown, or goes away, when the driver waits for it."""
    bus = vm.devices
    assert bus is not None
    for _ in range(RUNS_MOST):
        if ports.write(vm, vcpu, bus, run.base + offset, size, value) != Status.WAIT:
            return
        if vcpu.state == VcpuState.WAITING:
            run.waits += 1
            if draw(16) == 0:
                consoles.close(vm)
            else:
                take_output(vm)
        if vcpu.state != VcpuState.RUNNABLE:
            run.wrong += 1  # it waits for nothing
            return
    run.wrong += 1  # no exit goes on for ever


def take_output(vm: Vm) -> None:
    """The host reads a part of what is shown, and says so."""
    shown = vm.console
    shown.output_tail = wrap_u32(shown.output_tail + 1 + u32(draw(consoles.used(shown))))
    consoles.wake_writers(vm)


def start(vm: Vm, vcpu: Vcpu) -> None:
    """The device from reset to DRIVER_OK, with both queues."""
    run.starts += 1
    out(vm, vcpu, STATUS, 1, 0)
    out(vm, vcpu, STATUS, 1, 3)
    out(vm, vcpu, 0x08, 4, 0)
    out(vm, vcpu, 0x0C, 4, 0x3000_0000 if draw(2) == 0 else 0)
    out(vm, vcpu, 0x08, 4, 1)
    out(vm, vcpu, 0x0C, 4, VERSION_1)
    out(vm, vcpu, STATUS, 1, 11)
    for index in range(CONSOLE_QUEUES):
        place: u64 = PARTS + STRIDE * index
        store_u16(wrap_u64(place + 0x1040 + maker.shift) + 2, 0)
        out(vm, vcpu, 0x16, 2, u32(index))
        out(vm, vcpu, 0x18, 2, QUEUE_SIZE_MOST)
        out(vm, vcpu, 0x20, 4, u32(place))
        out(vm, vcpu, 0x28, 4, u32(place + 0x1040))
        out(vm, vcpu, 0x30, 4, u32(place + 0x1F80))
        out(vm, vcpu, 0x1C, 2, 1)
    out(vm, vcpu, STATUS, 1, STARTED)
    run.offered0 = 0
    run.offered1 = 0
    r = console_of(vm).registers
    if r.status != STARTED or not r.queues[0].enabled or not r.queues[1].enabled:
        run.wrong += 1


def turns(vm: Vm, count: u64) -> u64:
    """So many things that a driver, whoever types, and the host do; how often something was not as it must be."""
    vcpu = vm.vcpus[0]
    assert vcpu is not None
    for _ in range(count):
        step(vm, vcpu)
        check(vm, vcpu)
        if console_of(vm).registers.status & NEEDS_RESET != 0:
            run.broken += 1
            start(vm, vcpu)
    return run.wrong


def step(vm: Vm, vcpu: Vcpu) -> None:
    """One of them."""
    match u32(draw(16)):
        case 0:
            anything(vm, vcpu)
        case 1:
            consoles.allow(vm, u32(draw(1 << 32)))
        case 2:
            if consoles.used(vm.console) != 0:
                take_output(vm)
            else:
                consoles.close(vm)
        case 3 | 4 | 5 | 6 | 7:
            for _ in range(draw(40)):
                if guest_console.type_byte(vm, u8(draw(256))):
                    run.typed += 1
            service.typed(vm)
        case 8 | 9 | 10 | 11:
            offer(vm, vcpu, CONSOLE_RECEIVE)
        case _:
            offer(vm, vcpu, 1)


def anything(vm: Vm, vcpu: Vcpu) -> None:
    """Any value into any register; mostly the device has to be started again."""
    size: u32 = 1 << (u32(draw(3)) & 3)
    out(vm, vcpu, u32(draw(256)) & ~(size - 1), size, u32(draw(1 << 32) if draw(2) else draw(16)))
    if draw(4) != 0:
        start(vm, vcpu)


def offer(vm: Vm, vcpu: Vcpu, index: u32) -> None:
    """A chain or two in one queue, with a mistake now and then, and the notification."""
    maker.queue = PARTS + STRIDE * index
    if draw(16) == 0:
        broken_rings.some_queue()
    else:
        some_chain(maker.queue, broken_rings.DEVICE_WRITES if index == CONSOLE_RECEIVE else 0)
    after = broken_rings.some_available(maker.queue + 0x1040, QUEUE_SIZE_MOST, run.offered0 if index == CONSOLE_RECEIVE else run.offered1)
    if index == CONSOLE_RECEIVE:
        run.offered0 = after
    else:
        run.offered1 = after
    out(vm, vcpu, NOTIFY + 4 * index, 2, index)


def some_chain(place: u64, flags: u32) -> None:
    """From descriptor 0 on, all of it in one direction; and the same pieces behind a table."""
    count: u64 = 1 + draw(4)
    table: u64 = maker.scratch + 512 * draw(broken_rings.TABLES)
    for index in range(count):
        more: u32 = broken_rings.NEXT if index + 1 < count else 0
        gpa: u64 = broken_rings.some_address()
        length = broken_rings.some_length()
        broken_rings.put_descriptor(place + 16 * index, gpa, length, flags | more, u32(index + 1))
        broken_rings.put_descriptor(table + 16 * index, gpa, length, flags | more, u32(index + 1))
    broken_rings.put_descriptor(place + 16 * broken_rings.TABLE_HEAD, table, u32(16 * count), broken_rings.INDIRECT, 0)


def check(vm: Vm, vcpu: Vcpu) -> None:
    """Nothing is in flight between two exits, nothing was lost, and what a device that is in order was given to show was shown."""
    device = console_of(vm)
    r = device.registers
    shown = vm.console
    if device.in_flight != 0 or r.queues[0].in_flight != 0 or r.queues[1].in_flight != 0:
        run.wrong += 1
    if shown.output_lost != 0 or vcpu.console_wait_until != 0:
        run.wrong += 1
    if r.status == STARTED and (r.shown != 0 or r.queues[1].next_available != run.offered1):
        run.wrong += 1
    if r.status & ~(transport.STATUS_WRITABLE | NEEDS_RESET) != 0:
        run.wrong += 1


def end(vm: Vm) -> u64:
    """Take the device apart; the address of the results."""
    devices.destroy(vm)
    return address(run)

