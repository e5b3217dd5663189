"""A running emulator: its process, the operator console (first serial port) as a socket, and how it ended."""

import contextlib
import json
import select
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from krait import machine as machines
from krait import paths
from krait.iso import make_iso
from krait.machine import Links, Machine, Media
from krait.outcome import ExitCode, KraitError
from krait.process import Child

CONNECT_SECONDS = 30.0
"""How long an emulator may take from its start until it opens the serial port; it takes under a second."""


class Emulator:
    """One machine under emulation. Logs go to `log_dir`; leaving the `with` block ends everything that was started.

    `console` is a connected stream socket: what the first serial port prints is received, what is sent is typed.
    `channel` is the same of the second serial port, if the machine has one.
    """

    def __init__(self, machine: Machine, media: Media, log_dir: Path) -> None:
        machine.check()
        log_dir.mkdir(parents=True, exist_ok=True)
        self.machine = machine
        self.log_dir = log_dir
        self._sockets = paths.socket_dir()
        self._qmp_path = Path(self._sockets.name) / "qmp"
        self.gdb_path = Path(self._sockets.name) / "gdb" if machine.gdb else None
        if machine.iso or machine.emulator == "bochs":
            media = Media(media.kernel, media.bundle, make_iso(media, log_dir / "krait.iso"))
        try:
            with contextlib.ExitStack() as stack:
                listener = stack.enter_context(self._listen("com1"))
                second = stack.enter_context(self._listen("com2")) if machine.channel else None
                self.command = machines.command_line(machine, media, self._links(listener, second))
                self.child = Child(self.command, log_dir / "emulator.log", machines.environment(machine))
                try:
                    self.console = self._accept(listener)
                    self.channel = None if second is None else self._accept(second)
                except BaseException:
                    self.child.stop()
                    raise
        except BaseException:
            self._sockets.cleanup()
            raise

    def _listen(self, port: str) -> socket.socket:
        if self.machine.emulator == "bochs":
            listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        else:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(Path(self._sockets.name) / port))
            listener.listen(1)
        return listener

    def _links(self, first: socket.socket, second: socket.socket | None) -> Links:
        qmp = self._qmp_path if self.machine.emulator == "qemu" else None
        return Links(_name(first), None if second is None else _name(second), qmp, self.gdb_path, self.log_dir / "bochs.log")

    def _accept(self, listener: socket.socket) -> socket.socket:
        ready, _, _ = select.select([listener.fileno(), self.child.pidfd], [], [], CONNECT_SECONDS)
        if listener.fileno() not in ready:
            raise KraitError(f"{self.machine.emulator} did not start:\n{self.emulator_output()}", ExitCode.FAILED)
        console, _ = listener.accept()
        if console.family == socket.AF_INET:
            console.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            acknowledge_at_once(console)
        return console

    def emulator_output(self) -> str:
        """What the emulator itself said: its standard output and error."""
        return self.child.log.read_text(errors="replace").strip()

    def wait(self, timeout: float | None) -> int | None:
        """The emulator's exit status once it has ended by itself, or None after `timeout` seconds."""
        return self.child.wait(timeout)

    def qmp(self, command: str, **arguments: object) -> object:
        """Run one QMP command (QEMU only) and return its answer; KraitError when QEMU refuses it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.connect(str(self._qmp_path))
            with control.makefile("rw", encoding="utf-8") as stream:
                stream.readline()
                for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                    stream.write(json.dumps(request) + "\n")
                    stream.flush()
                    answer = json.loads(stream.readline())
                    while "event" in answer:
                        answer = json.loads(stream.readline())
        if "error" in answer:
            raise KraitError(f"QMP {command}: {answer['error']['desc']}")
        return answer["return"]

    def stop(self) -> None:
        """End the emulator now, with whatever it started, and let go of sockets."""
        self.child.stop()
        self.console.close()
        if self.channel is not None:
            self.channel.close()
        self._sockets.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _name(listener: socket.socket) -> str:
    """Where to connect to, as the emulator's command line has it."""
    name = listener.getsockname()
    return name if isinstance(name, str) else f"localhost:{name[1]}"


def acknowledge_at_once(console: socket.socket) -> None:
    """Ask the kernel to acknowledge what was received without delay: Bochs writes byte by byte and waits.

    It holds until the next receive only, so it is called after each. No effect on a Unix socket.
    """
    if console.family == socket.AF_INET:
        console.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def receive(console: socket.socket, size: int = 65536) -> bytes:
    """The next bytes of the console; empty at its end."""
    try:
        data = console.recv(size)
    except ConnectionResetError:
        return b""
    acknowledge_at_once(console)
    return data
