"""The hypervisor's end of the channel over a fake 16550: what a host sends is obeyed or refused, whatever it sends."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor import abi_channel as abi
from hypervisor import console, guest_console, log, vm
from hypervisor.abi_channel import EventKind, FrameKind, QueryKind, Refusal
from hypervisor.arch_x86 import serial
from hypervisor.channel import consoles, events, link
from hypervisor.channel.state import link as state
from hypervisor.cpu import this_cpu
from hypervisor.lang import clear
from hypervisor.model import CONSOLE_INPUT_BYTES, CONSOLE_OUTPUT_BYTES, WORK_CHANNEL, Vm
from hypervisor.paging import pressure
from hypervisor.status import Status
from krait.channel import Frame, Reader, bytes_of, decode, encode
from tests.memory.world import World, vcpu_of


class Host:
    """The other end, and a hypervisor with one VM."""

    def __init__(self) -> None:
        self.world = World(64)
        for part in (serial.com1, serial.com2, state, log.ring, events.ring, vm.table, console.capture, console.prompt):
            clear(part)
        serial.com2.present = serial.com2.by_interrupt = serial.com2.holds_back = serial.com2.transmitting = True
        self.vm = self.world.vm(4)
        for index, char in enumerate(b"ada"):
            self.vm.name[index] = char
        vm.table.vms[self.vm.id] = self.vm
        vm.table.count = self.vm.id + 1
        self.reader = Reader()

    def send(self, *sent: Frame | bytes) -> list[Frame]:
        """Send; what comes back until nothing is owed."""
        for item in sent:
            for byte in encode(item) if isinstance(item, Frame) else item:
                serial.keep(serial.com2, byte)
        assert serial.com2.input_dropped == 0
        return self.settle()

    def settle(self) -> list[Frame]:
        """Poll while there is something to do; the line takes all."""
        found: list[Frame] = []
        cpu = this_cpu()
        cpu.work |= WORK_CHANNEL
        for _ in range(2000):
            if not cpu.work & WORK_CHANNEL and not serial.com2.wants_room:
                return found
            cpu.work &= ~WORK_CHANNEL
            link.poll(cpu)
            found += self.reader.feed(self.taken())
        raise AssertionError("it never settles")

    def taken(self) -> bytes:
        uart = serial.com2
        sent = bytes(uart.output[n % serial.OUTPUT_BYTES] for n in range(uart.output_tail, uart.output_head))
        uart.output_tail = uart.output_head
        return sent

    def hello(self, flags: int = 0) -> list[Frame]:
        greeting = abi.Hello()
        greeting.version, greeting.flags = abi.CHANNEL_VERSION, flags
        return self.send(Frame(FrameKind.HELLO, 0, bytes_of(greeting)))

    def credit(self, count: int) -> Frame:
        allowed = abi.Credit()
        allowed.bytes = count
        return Frame(FrameKind.CREDIT, self.vm.id, bytes_of(allowed))


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.world.close()


def why(frame: Frame) -> Refusal:
    assert frame.kind == FrameKind.REFUSED
    return Refusal(decode(abi.Refused, frame.payload)["why"])


def test_hello_comes_first(host: Host) -> None:
    assert host.send(Frame(FrameKind.COMMAND, 1, b"list")) == [], "nothing is obeyed or told before HELLO"
    [answer] = host.hello()
    assert decode(abi.Hello, answer.payload)["console_bytes"] == CONSOLE_OUTPUT_BYTES


def test_a_command_answers_to_the_host_alone(host: Host) -> None:
    host.hello()
    text, end = host.send(Frame(FrameKind.COMMAND, 9, b"nonsense"))
    assert (text.stream, text.payload) == (9, b"no such command: nonsense; `help` lists them\n")
    assert decode(abi.End, end.payload) == {"refused": 1, "lost": 0}
    *texts, end = host.send(Frame(FrameKind.COMMAND, 10, b"help"))
    assert b"pause NAME" in b"".join(frame.payload for frame in texts) and decode(abi.End, end.payload)["refused"] == 0
    assert why(host.send(Frame(FrameKind.COMMAND, 1, b"x" * 256))[0]) == Refusal.LENGTH


def test_records(host: Host) -> None:
    host.hello()
    query = abi.Query()
    query.what = QueryKind.VMS
    record, end = host.send(Frame(FrameKind.QUERY, 3, bytes_of(query)))
    assert decode(abi.VmRecord, record.payload)["name"] == "ada" and end.kind == FrameKind.END
    query.what = QueryKind.HOST
    record, end = host.send(Frame(FrameKind.QUERY, 4, bytes_of(query)))
    assert decode(abi.HostRecord, record.payload)["vms"] == 1
    query.what = 77
    assert why(host.send(Frame(FrameKind.QUERY, 5, bytes_of(query)))[0]) == Refusal.QUERY


def test_console_output_waits_for_credit(host: Host) -> None:
    host.hello()
    for byte in b"before":
        guest_console.put(host.vm, byte)
    assert host.settle() == []
    opened, output = host.send(host.credit(4))
    assert opened.kind == FrameKind.CREDIT and decode(abi.Credit, opened.payload)["bytes"] == CONSOLE_INPUT_BYTES - 1
    assert output.payload == b"befo"
    assert b"".join(frame.payload for frame in host.send(host.credit(100))) == b"re"
    host.vm.console.credit = 0
    for _ in range(CONSOLE_OUTPUT_BYTES):
        consoles.put(host.vm, 120)
    vcpu = vcpu_of(host.vm)
    assert consoles.room(host.vm) == 0 and consoles.wait(vcpu, host.vm)
    assert sum(len(frame.payload) for frame in host.send(host.credit(300))) == 300
    assert vcpu.state == 0 and host.vm.console.output_lost == 0, "it runs again"


def test_a_wait_for_a_frame_in_between_leaves_the_console_its_timer(host: Host) -> None:
    """Both use one timer of the vCPU: a call that waits for room, then for a frame, then for room again is still woken in the end."""
    vcpu = vcpu_of(host.vm)
    assert consoles.wait(vcpu, host.vm) and vcpu.frame_wait_timer.heap_index != 0
    assert pressure.wait(vcpu) == Status.WAIT
    pressure.stop_waiting(vcpu)
    assert consoles.wait(vcpu, host.vm)
    assert vcpu.frame_wait_timer.heap_index != 0 and vcpu.frame_wait_timer.deadline == vcpu.console_wait_until
    consoles.stop_waiting(vcpu)


def test_credit_for_typing(host: Host) -> None:
    host.hello()
    host.send(host.credit(100))
    assert host.send(Frame(FrameKind.CONSOLE, host.vm.id, b"x" * (CONSOLE_INPUT_BYTES - 1))) == []
    assert why(host.send(Frame(FrameKind.CONSOLE, host.vm.id, b"y"))[0]) == Refusal.CREDIT
    given_back = 0
    for _ in range(CONSOLE_INPUT_BYTES - 1):
        assert guest_console.take_input(host.vm) == ord("x")
        given_back += sum(decode(abi.Credit, frame.payload)["bytes"] for frame in host.settle())
    assert given_back == CONSOLE_INPUT_BYTES - 1
    assert why(host.send(Frame(FrameKind.CONSOLE, 7, b"z"))[0]) == Refusal.HANDLE


def test_events_and_log_are_numbered(host: Host) -> None:
    log.info("one")
    host.hello(abi.WANT_EVENTS | abi.WANT_LOG)
    for number in range(events.EVENTS + 5):
        events.happened(host.vm, EventKind.PAUSED, number, "why")
        log.warning(f"{number}")
    came = host.settle()
    told = [decode(abi.EventRecord, frame.payload) for frame in came if frame.kind == FrameKind.EVENT]
    assert [record["number"] for record in told] == list(range(5, events.EVENTS + 5)), "the oldest are gone, and that is seen"
    assert (told[0]["name"], told[0]["text"]) == ("ada", "why")
    assert [frame.stream for frame in came if frame.kind == FrameKind.LOG][-1] == events.EVENTS + 5


SENT = st.one_of(
    st.binary(max_size=60),
    st.builds(Frame, st.sampled_from(FrameKind), st.integers(0, 3), st.one_of(
        st.binary(max_size=40), st.sampled_from([b"list", b"pause ada", b"resume ada", b"info ada", b"log 3", b"weight ada 3", b"policy"]))))


@given(st.lists(SENT, max_size=20))
@settings(max_examples=50, deadline=None)
def test_whatever_comes(sent: list[Frame | bytes]) -> None:
    """It goes on answering, and the VM's rings stay whole. (Commands that end the machine or the VM are not among them.)"""
    host = Host()
    try:
        host.hello(7)
        for item in sent:
            host.send(item)
        host.send(bytes(600))
        assert host.hello(7)[0].kind == FrameKind.HELLO
        gathered: Vm = host.vm
        assert consoles.used(gathered.console) <= CONSOLE_OUTPUT_BYTES and gathered.console.from_host < CONSOLE_INPUT_BYTES
        host.world.check()
    finally:
        host.world.close()
