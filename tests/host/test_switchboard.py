"""The host's end of the channel: what clients and guests do at the same moment, and what is asked when nobody answers."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypervisor import abi_channel as abi
from hypervisor.abi_channel import EventKind, FrameKind
from krait import channel
from krait.bundle import put_text
from krait.channel import Frame
from krait.switchboard import Switchboard

HANDLE = 4


class Machine:
    """A hypervisor that says what a test tells it to."""

    def __init__(self, folder: Path) -> None:
        self.line, theirs = socket.socketpair()
        self.line.settimeout(10)
        self.folder = folder
        self.board = Switchboard(theirs, folder)
        self.reader = channel.Reader()

    def say(self, kind: FrameKind, stream: int, payload: bytes) -> None:
        self.line.sendall(channel.encode(Frame(kind, stream, payload)))

    def event(self, kind: EventKind) -> None:
        record = abi.EventRecord()
        record.kind = kind
        put_text(record.name, "ada")
        self.say(FrameKind.EVENT, HANDLE, channel.bytes_of(record))

    def heard(self, kind: FrameKind) -> Frame:
        """The next frame of that kind."""
        while True:
            for frame in self.reader.feed(self.line.recv(4096)):
                if frame.kind == kind:
                    return frame

    def client(self) -> socket.socket:
        """Someone at the guest's console, whom the board knows."""
        self.event(EventKind.CREATED)
        self.say(FrameKind.CONSOLE, HANDLE, b"hello")
        self.heard(FrameKind.CREDIT)
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(str(self.folder / "ada"))
        assert client.recv(64) == b"hello"
        return client


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "b")
    yield made
    made.board.close()
    made.line.close()


def test_a_client_types_while_its_guest_goes(machine: Machine) -> None:
    inside, gate = threading.Event(), threading.Event()

    def held_up(_: object) -> None:
        inside.set()
        gate.wait(10)

    with machine.client() as client:
        machine.board._ask(FrameKind.COMMAND, b"first").add_done_callback(held_up)
        machine.say(FrameKind.END, machine.heard(FrameKind.COMMAND).stream, channel.bytes_of(abi.End()))
        assert inside.wait(10)
        # The board's thread finds both of these at once, the guest's end first.
        machine.event(EventKind.DESTROYED)
        client.sendall(b"x")
        gate.set()
        second = machine.board._ask(FrameKind.COMMAND, b"second")
        machine.say(FrameKind.END, machine.heard(FrameKind.COMMAND).stream, channel.bytes_of(abi.End()))
        assert not second.result(10).refused


def test_a_machine_that_has_ended_answers_no_request(machine: Machine) -> None:
    machine.board.close()
    with pytest.raises(ConnectionError):
        machine.board.command("list", timeout=10)


def test_a_line_that_no_frame_holds_is_refused(machine: Machine) -> None:
    answer = machine.board.command("x" * (abi.PAYLOAD_MOST + 1), timeout=10)
    assert answer.refused and answer.text.startswith("refused: too long")
