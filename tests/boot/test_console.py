"""The operator's console over a fake 16550: nothing is lost or mixed, guests' lines are escaped, keys edit the line."""
import re
from collections import deque
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor import console, guest_console, operator
from hypervisor.arch_x86 import serial
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.lang import clear
from hypervisor.model import Cpu, Vm

BASE = serial.COM1_PORT


class Uart:
    """A 16550: one interrupt cause at a time, as IIR tells."""

    def __init__(self) -> None:
        machine.reset()
        self.sent = bytearray()
        self.received: deque[int] = deque()
        self.registers = {serial.SCR: 0, serial.IER: 0}
        self.empty_seen = False  # the transmitter's interrupt has been taken
        for offset in range(8):
            machine.port_readers[BASE + offset] = partial(self.read, offset)
            machine.port_writers[BASE + offset] = partial(self.write, offset)
        clear(serial.com1)
        clear(console.prompt)
        clear(guest_console.attached)
        assert serial.init()
        self.sent.clear()

    def read(self, offset: int) -> int:
        if offset == serial.THR:
            return self.received.popleft()
        if offset == serial.LSR:
            return serial.LSR_THR_EMPTY | serial.LSR_TRANSMITTER_EMPTY | (serial.LSR_DATA_READY if self.received else 0)
        if offset == serial.IIR:
            if self.received and self.registers[serial.IER] & serial.IER_RECEIVE:
                return 4
            if self.registers[serial.IER] & serial.IER_TRANSMIT and not self.empty_seen:
                self.empty_seen = True
                return 2
            return serial.IIR_NONE_PENDING
        return self.registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        if offset == serial.THR:
            self.sent.append(value)
            self.empty_seen = False
        else:
            if offset == serial.IER and value & serial.IER_TRANSMIT and not self.registers[serial.IER] & serial.IER_TRANSMIT:
                self.empty_seen = False
            self.registers[offset] = value

    def serve(self) -> None:
        """Interrupts until there is none; each does a bounded part."""
        before = len(self.sent)
        serial.on_interrupt()
        assert len(self.sent) - before <= serial.ROUNDS_MOST * serial.FIFO_BYTES
        while serial.com1.transmitting:
            serial.on_interrupt()


@pytest.fixture
def uart() -> Iterator[Uart]:
    yield Uart()
    machine.reset()


def make_vm(name: bytes = b"ada") -> Vm:
    """A VM with a name and nothing else."""
    vm = Vm()
    for index, byte in enumerate(name):
        vm.name[index] = byte
    return vm


def say_as(vm: Vm, data: bytes) -> None:
    """What a guest writes."""
    for byte in data:
        guest_console.put(vm, byte)


def test_an_absent_uart_is_noticed_and_nothing_waits_for_it() -> None:
    machine.reset()
    clear(serial.com1)
    assert not serial.init()
    console.say("nobody hears")
    assert not any(port == BASE for port, _, _ in machine.ports_written)


@given(st.lists(st.one_of(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60), st.none()), max_size=40))
def test_lines_arrive_whole_and_in_order(lines: list[str | None]) -> None:
    uart = Uart()
    serial.start_interrupts()
    for line in lines:
        if line is None:
            uart.serve()
        else:
            console.say(line)
    uart.serve()
    assert uart.sent.decode() == "".join(f"{line}\r\n" for line in lines if line is not None)
    assert not serial.com1.transmitting


def test_flush_sends_the_ring_by_polling(uart: Uart) -> None:
    serial.start_interrupts()
    console.say("x" * 100)
    assert not uart.sent
    serial.flush()
    console.say("end")
    assert uart.sent == b"x" * 100 + b"\r\nend\r\n" and uart.registers[serial.IER] == 0


def test_a_flood_loses_whole_lines_and_their_number_is_shown(uart: Uart) -> None:
    serial.start_interrupts()
    vm = make_vm()
    for number in range(5000):
        say_as(vm, b"line %d\n" % number)
    console.say("the hypervisor is heard")
    uart.serve()
    say_as(vm, b"last\n")
    uart.serve()
    *shown, ours, lost, last = uart.sent.decode().splitlines()
    assert shown == [f"[ada] line {number}" for number in range(len(shown))]
    assert ours == "the hypervisor is heard" and last == "[ada] last"
    found = re.fullmatch(r"\[ada\] \.\.\. (\d+) lines lost: .*", lost)
    assert found is not None and int(found[1]) == 5000 - len(shown)
    assert serial.com1.output_dropped == 0


def test_a_flood_of_the_attached_guest_leaves_the_hypervisor_its_room(uart: Uart) -> None:
    serial.start_interrupts()
    vm = make_vm()
    guest_console.attach(vm)
    say_as(vm, b"x" * 2 * serial.OUTPUT_BYTES)
    console.say("the hypervisor is heard")
    uart.serve()
    assert bytes(uart.sent).endswith(b"x\r\nthe hypervisor is heard\r\n")
    assert serial.com1.output_dropped + uart.sent.count(b"x") == 2 * serial.OUTPUT_BYTES


@given(st.binary(max_size=300))
def test_a_guest_cannot_control_the_terminal(data: bytes) -> None:
    uart = Uart()
    vm = make_vm()
    say_as(vm, data)
    guest_console.finish(vm)
    assert re.fullmatch(rb"(\[ada\] [\x20-\x7e\t]*\r\n)*", bytes(uart.sent))
    shown = b"".join(line.removeprefix(b"[ada] ") for line in bytes(uart.sent).split(b"\r\n"))
    plain = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), shown)
    if b"\\" not in data:
        assert plain == data.replace(b"\n", b"").replace(b"\r", b"")


def test_lines_appear_above_the_line_being_typed(uart: Uart) -> None:
    console.show_prompt()
    type_keys("li")
    say_as(make_vm(), b"hello\n")
    assert uart.sent == b"krait> li" + b"\r\x1b[K[ada] hello\r\nkrait> li"


def type_keys(keys: str) -> None:
    """Keys arrive at the UART and are taken at the prompt."""
    for key in keys.encode():
        serial.keep(serial.com1, key)
    cpu = Cpu()
    operator.poll(cpu)
    while serial.has_input():
        operator.poll(cpu)


@settings(deadline=None)
@given(st.text("abc\x7f\x15", max_size=120))
def test_editing_leaves_what_a_person_expects(keys: str) -> None:
    Uart()
    console.show_prompt()
    type_keys(keys)
    expected = ""
    for key in keys:
        if key == "\x15":
            expected = ""
        elif key == "\x7f":
            expected = expected[:-1]
        elif len(expected) < console.LINE_BYTES - 1:
            expected += key
    typed = bytes(console.prompt.text[i] for i in range(console.prompt.length)).decode()
    assert typed == expected


def test_an_input_overrun_is_counted(uart: Uart) -> None:
    serial.start_interrupts()
    uart.received.extend(b"x" * (serial.INPUT_BYTES + 5))
    uart.serve()
    assert serial.com1.input_dropped == 5 and serial.has_input()
