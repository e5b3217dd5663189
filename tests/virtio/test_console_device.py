"""The virtio console as a driver meets it: registers by PCI ports, rings in guest memory; also by a driver that means no good."""
from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor import apic_bus, guest_console
from hypervisor.channel import consoles
from hypervisor.devices import pci_function, uart16550
from hypervisor.model import CONSOLE_OUTPUT_BYTES, Vcpu, VcpuState
from hypervisor.status import Status
from hypervisor.virtio import devices, ports, service
from hypervisor.virtio.ring import INDIRECT, NEXT, WRITE
from hypervisor.virtio.state import CONSOLE_QUEUES, NEEDS_RESET, Device, DeviceKind, Devices
from tests.linux.stock import Stock, stock

__all__ = ["stock"]

RECEIVE, TRANSMIT = 0, 1
SIZE = 8
DESCRIPTORS, AVAILABLE, USED, DATA = 0x10000, 0x11000, 0x12000, 0x20000
QUEUE_STRIDE = 0x4000
STATUS, QUEUE_SELECT, QUEUE_SIZE, QUEUE_ENABLE, NOTIFY = 0x14, 0x16, 0x18, 0x1C, 0xC0
VERSION_1 = 1  # bit 32


class Driver:
    """A driver of the device that `stock` gets."""

    def __init__(self, stock: Stock) -> None:
        self.stock = stock
        stock.vm.virtio_console = True
        stock.platform.uart.fcr = uart16550.FCR_ENABLE
        assert devices.create(stock.vm) == Status.OK
        made = devices.add(stock.vm, DeviceKind.CONSOLE, 0, CONSOLE_QUEUES)
        assert made is not None and stock.vm.devices is not None
        self.device: Device = made
        self.bus: Devices = stock.vm.devices
        self.base = pci_function.io_base(self.bus.host.functions[made.slot])
        self.offered = [0, 0]

    def out(self, offset: int, value: int, size: int) -> None:
        """OUT to BAR 0, until it is done."""
        while ports.write(self.stock.vm, self.stock.vcpu, self.bus, self.base + offset, size, value) == Status.WAIT:
            if self.stock.vcpu.state != VcpuState.RUNNABLE:
                return

    def inp(self, offset: int, size: int) -> int:
        return ports.read(self.stock.vm, self.bus, self.base + offset, size)

    def start(self) -> None:
        """As Linux does it."""
        for status in (0, 1, 3):
            self.out(STATUS, status, 1)
        self.out(0x08, 1, 4)
        self.out(0x0C, VERSION_1, 4)
        self.out(STATUS, 11, 1)
        assert self.inp(STATUS, 1) == 11
        for queue in (RECEIVE, TRANSMIT):
            self.out(QUEUE_SELECT, queue, 2)
            self.out(QUEUE_SIZE, SIZE, 2)
            for register, place in ((0x20, DESCRIPTORS), (0x28, AVAILABLE), (0x30, USED)):
                self.out(register, place + queue * QUEUE_STRIDE, 4)
            self.out(QUEUE_ENABLE, 1, 2)
            assert self.inp(QUEUE_ENABLE, 2) == 1
            self.offered[queue] = 0
        self.out(STATUS, 15, 1)

    def offer(self, queue: int, *pieces: tuple[int, int], flags: int = 0) -> None:
        """One chain of (address, length), then the notification."""
        for index, (gpa, length) in enumerate(pieces):
            last = index == len(pieces) - 1
            self.stock.put(DESCRIPTORS + queue * QUEUE_STRIDE + 16 * index,
                           struct.pack("<QIHH", gpa, length, flags | (0 if last else NEXT), index + 1))
        self.stock.put(AVAILABLE + queue * QUEUE_STRIDE + 4 + 2 * (self.offered[queue] % SIZE), struct.pack("<H", 0))
        self.offered[queue] += 1
        self.stock.put(AVAILABLE + queue * QUEUE_STRIDE + 2, struct.pack("<H", self.offered[queue] & 0xFFFF))
        self.out(NOTIFY + 4 * queue, queue, 2)

    def used(self, queue: int) -> list[tuple[int, int]]:
        """Chains that came back, and the bytes in them."""
        count = self.stock.number_at(USED + queue * QUEUE_STRIDE + 2, 2)
        elements = [USED + queue * QUEUE_STRIDE + 4 + 8 * (index % SIZE) for index in range(count)]
        return [(self.stock.number_at(at, 4), self.stock.number_at(at + 4, 4)) for at in elements]

    def shown(self) -> bytes:
        """What has come out, as the channel has it."""
        gathered = self.stock.vm.console
        first = max(0, gathered.output_head - CONSOLE_OUTPUT_BYTES)
        return bytes(gathered.output[at % CONSOLE_OUTPUT_BYTES] for at in range(first, gathered.output_head))


@pytest.fixture
def driver(stock: Stock) -> Iterator[Driver]:
    made = Driver(stock)
    yield made
    devices.destroy(stock.vm)


def state_of(vcpu: Vcpu) -> VcpuState:
    return vcpu.state


def type_text(driver: Driver, text: bytes) -> None:
    for byte in text:
        assert guest_console.type_byte(driver.stock.vm, byte)
        service.typed(driver.stock.vm)
        while driver.bus.hungry:  # the buffer's page has no frame yet: the next vCPU that runs takes one
            service.feed(driver.stock.vcpu, driver.stock.vm, driver.bus)


def test_what_a_driver_sends_is_shown_and_comes_back(driver: Driver) -> None:
    driver.start()
    driver.stock.put(DATA, b"hello " * 50)
    driver.offer(TRANSMIT, (DATA, 7), (DATA + 1, 300 - 1), (DATA, 1))
    assert driver.shown() == b"hello h" + (b"hello " * 50)[1:] + b"h"
    assert driver.used(TRANSMIT) == [(0, 0)]
    assert driver.inp(0x40, 1) == 1  # the interrupt is by line here: nobody switched messages on


def test_what_is_typed_comes_to_the_driver_and_not_to_the_uart(driver: Driver) -> None:
    type_text(driver, b"early")
    assert driver.stock.platform.uart.count == 5  # nobody listens yet
    driver.start()
    type_text(driver, b"ab")
    assert driver.stock.platform.uart.count == 5 and driver.used(RECEIVE) == []
    driver.offer(RECEIVE, (DATA + 4094, 2000), flags=WRITE)
    assert driver.used(RECEIVE) == [(0, 2)] and driver.stock.bytes_at(DATA + 4094, 2) == b"ab"
    driver.offer(RECEIVE, (DATA, 2000), flags=WRITE)
    assert len(driver.used(RECEIVE)) == 1
    type_text(driver, b"c")
    assert driver.used(RECEIVE)[1:] == [(0, 1)] and driver.stock.bytes_at(DATA, 1) == b"c"
    driver.out(STATUS, 0, 1)
    type_text(driver, b"late")
    assert driver.stock.platform.uart.count == 9


def test_a_driver_is_interrupted_by_message(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(apic_bus, "msi", lambda vm, where, data: sent.append((where, data)))
    driver.start()
    function = driver.bus.host.functions[driver.device.slot]
    function.config[pci_function.MSIX] |= pci_function.MSIX_ENABLE
    driver.out(QUEUE_SELECT, RECEIVE, 2)
    driver.out(0x1A, 1, 2)
    words = driver.device.registers.msix.words
    words[4], words[5], words[6], words[7] = 0xFEE00000, 0, 0x51, 0
    driver.offer(RECEIVE, (DATA, 64), flags=WRITE)
    assert sent == []
    type_text(driver, b"x")
    assert sent == [(0xFEE00000, 0x51)]


def test_it_waits_while_the_host_takes_nothing_and_loses_nothing(driver: Driver) -> None:
    vm, vcpu = driver.stock.vm, driver.stock.vcpu
    driver.start()
    consoles.allow(vm, 0)
    text = bytes(random.Random(1).randbytes(CONSOLE_OUTPUT_BYTES + 200))
    driver.stock.put(DATA, text)
    driver.offer(TRANSMIT, (DATA, len(text)))
    assert state_of(vcpu) == VcpuState.WAITING and vcpu.frame_wait_timer.heap_index != 0 and driver.used(TRANSMIT) == []
    seen = driver.shown()
    vm.console.output_tail = vm.console.output_head
    consoles.wake_writers(vm)
    assert state_of(vcpu) == VcpuState.RUNNABLE
    driver.out(NOTIFY + 4 * TRANSMIT, TRANSMIT, 2)  # the exit is run again
    assert driver.used(TRANSMIT) == [(0, 0)] and seen + driver.shown()[-200:] == text and vm.console.output_lost == 0
    consoles.close(vm)


@pytest.mark.parametrize(("queue", "flags"), [(RECEIVE, 0), (TRANSMIT, WRITE), (TRANSMIT, INDIRECT)])
def test_a_chain_that_may_not_be_breaks_the_device_alone(driver: Driver, queue: int, flags: int) -> None:
    driver.start()
    driver.offer(queue, (DATA, 16), flags=flags)
    assert driver.inp(STATUS, 1) & NEEDS_RESET and driver.used(queue) == []
    type_text(driver, b"k")
    assert driver.stock.platform.uart.count == 1
    driver.start()
    driver.offer(TRANSMIT, (DATA, 1))
    assert driver.used(TRANSMIT)[-1] == (0, 0)


WORD = st.one_of(st.sampled_from([0, 1, 2, 3, 4, 8, 11, 15, 64, 128, DESCRIPTORS, AVAILABLE, USED, DATA, 0xFFFF]), st.integers(0, 0xFFFFFFFF))
STEP = st.one_of(
    st.tuples(st.just("out"), st.integers(0, 0xFF), WORD, st.sampled_from([1, 2, 4])),
    st.tuples(st.just("in"), st.integers(0, 0xFF), st.just(0), st.sampled_from([1, 2, 4])),
    st.tuples(st.just("start"), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just("type"), st.integers(0, 255), st.just(0), st.just(0)),
    st.tuples(st.just("memory"), st.integers(0, 2), st.integers(0, 2**64 - 1), st.integers(0, 15)),
    st.tuples(st.just("offer"), st.integers(0, 1), WORD, st.integers(0, 7)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEP, max_size=40))
def test_whatever_a_driver_does_only_it_is_hurt(steps: list[tuple[str, int, int, int]]) -> None:
    """Registers, rings and memory at random: nothing asserts, what is counted and pinned agrees, and the device can be taken apart."""
    with pytest.MonkeyPatch.context() as patch:
        stock = Stock(patch)
        try:
            torment(Driver(stock), steps)
            devices.destroy(stock.vm)
            stock.world.check()  # nothing is pinned any more
        finally:
            stock.close()


def torment(driver: Driver, steps: list[tuple[str, int, int, int]]) -> None:
    """One script."""
    vm, typed = driver.stock.vm, 0
    for kind, where, value, extra in steps:
        if kind == "out" and where % extra == 0:
            driver.out(where, value & (1 << 8 * extra) - 1, extra)
        elif kind == "in" and where % extra == 0:
            assert driver.inp(where, extra) < 1 << 8 * extra
        elif kind == "start":
            driver.start()
        elif kind == "type":
            typed += guest_console.type_byte(vm, where)
            service.typed(vm)
        elif kind == "memory":
            driver.stock.put((DESCRIPTORS, AVAILABLE, USED)[where] + 8 * extra, value.to_bytes(8, "little"))
        elif kind == "offer":
            driver.offer(where, (value, 1 + extra), flags=0 if where == TRANSMIT else WRITE)
        driver.stock.vcpu.state = VcpuState.RUNNABLE
    uart = driver.stock.platform.uart
    assert uart.count <= min(typed, uart16550.FIFO_BYTES) and driver.device.in_flight == 0
    assert all(queue.in_flight == 0 for queue in driver.device.registers.queues)
