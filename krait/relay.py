"""The loop of `krait run` and `krait attach`: console to screen, keys to console, others let in through a Unix socket."""

import contextlib
import os
import selectors
import socket
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from krait import paths
from krait.emulator import receive
from krait.screen import Screen

HISTORY_BYTES = 64 * 1024
"""What somebody who attaches gets to see of the past."""


LEAVE_AND_INTERRUPT = b"\x1d\x03"
"""Ctrl-] Ctrl-C: ends a machine whose guest gets Ctrl-C."""


@contextlib.contextmanager
def keys_one_by_one(terminal: int, interrupts: bool) -> Iterator[None]:
    """Have each key of the terminal at once and without echo; Ctrl-C keeps its meaning, or is a key if `interrupts`."""
    saved = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    if interrupts:
        mode = termios.tcgetattr(terminal)
        mode[3] &= ~termios.ISIG
        termios.tcsetattr(terminal, termios.TCSADRAIN, mode)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, saved)


class Hub:
    """Lets `krait attach` in: a Unix socket whose clients see the console and may type on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with paths.short(path) as name:
            self.listener.bind(name)
        self.listener.listen()
        self.clients: list[socket.socket] = []
        self._history = bytearray()

    def accept(self) -> socket.socket:
        """Let the next client in and show it the latest lines."""
        client, _ = self.listener.accept()
        client.settimeout(1.0)
        self.clients.append(client)
        self._send(client, bytes(self._history))
        return client

    def show(self, data: bytes) -> list[socket.socket]:
        """Pass console output on; returns the clients that are gone."""
        self._history += data
        del self._history[:-HISTORY_BYTES]
        return [client for client in self.clients if not self._send(client, data)]

    def _send(self, client: socket.socket, data: bytes) -> bool:
        try:
            client.sendall(data)
        except OSError:
            return False
        return True

    def drop(self, client: socket.socket) -> None:
        """Let a client go."""
        self.clients.remove(client)
        client.close()

    def close(self) -> None:
        """Let everybody go and take the socket away."""
        for client in list(self.clients):
            self.drop(client)
        self.listener.close()
        self.path.unlink(missing_ok=True)


@dataclass
class Relay:
    """Moves bytes until the console ends or the time is over; `transcript` gets all output. Ctrl-C is not moved, it
    interrupts us; unless `interrupts`, then only Ctrl-] Ctrl-C does."""

    console: socket.socket
    screen: Screen
    keys: int | None = None
    hub: Hub | None = None
    interrupts: bool = False
    transcript: bytearray = field(default_factory=bytearray)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _last_key: bytes = b""

    def run(self, timeout: float | None) -> bool:
        """Relay; True at the end of the console (or of the keyboard), False when `timeout` seconds are over first."""
        self._watch(self.console, self._from_console, ends=True)
        if self.hub is not None:
            self._watch(self.hub.listener, self._newcomer)
        with contextlib.ExitStack() as stack:
            if self.keys is not None:
                stack.enter_context(keys_one_by_one(self.keys, self.interrupts))
                self._watch(self.keys, self._from_keys, ends=True)
            stack.callback(self._selector.close)
            return self._loop(None if timeout is None else time.monotonic() + timeout)

    def _watch(self, source: socket.socket | int, handler: Callable[[], bool], ends: bool = False) -> None:
        """Call `handler` when `source` can be read; where it `ends` the relay, an answer of False does."""
        self._selector.register(source, selectors.EVENT_READ, (handler, ends))

    def _loop(self, deadline: float | None) -> bool:
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            for key, _ in self._selector.select(left):
                handler, ends = key.data
                if not handler() and ends:
                    self.screen.finish()
                    return True

    def _from_console(self) -> bool:
        data = receive(self.console)
        self.transcript += data
        self.screen.feed(data)
        if self.hub is not None:
            for client in self.hub.show(data):
                self._gone(client)
        return bool(data)

    def _from_keys(self) -> bool:
        assert self.keys is not None
        typed = os.read(self.keys, 1024)
        if self.interrupts and LEAVE_AND_INTERRUPT in self._last_key + typed:
            raise KeyboardInterrupt
        self._last_key = typed[-1:]
        self._type(typed)
        return bool(typed)

    def _type(self, data: bytes) -> None:
        """Type on the console; the Enter key of a terminal that is not raw is a line feed."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the end of the console tells
            self.console.sendall(data.replace(b"\n", b"\r"))

    def _newcomer(self) -> bool:
        assert self.hub is not None
        client = self.hub.accept()
        self._watch(client, lambda: self._from_client(client))
        return True

    def _from_client(self, client: socket.socket) -> bool:
        try:
            data = client.recv(4096)
        except OSError:
            data = b""
        if data:
            self._type(data)
        else:
            self._gone(client)
        return bool(data)

    def _gone(self, client: socket.socket) -> None:
        assert self.hub is not None
        self._selector.unregister(client)
        self.hub.drop(client)


def terminal_keys() -> int | None:
    """The descriptor of the keyboard when a person sits at both ends, else None."""
    return sys.stdin.fileno() if sys.stdin.isatty() and sys.stdout.isatty() else None
