"""Asking a `krait run` in another process: its guests, its machine, commands for it, and its guests' consoles."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

from krait import paths, progress, relay, running
from krait.outcome import ExitCode, KraitError
from krait.screen import Screen
from krait.records import Record
from krait.switchboard import CONTROL

TRACE_SECONDS = 600.0
"""How long a trace may take to come over: Bochs sends 350 records a second."""

ANSWER_SECONDS = 120.0
"""How long a machine may take to answer: a thousand guests' records are 360 KiB, and Bochs sends 11 KiB a second."""


class Remote:
    """A connection to one `krait run`, the latest unless `process` names it. KraitError: there is none, or it does not answer."""

    def __init__(self, process: int | None) -> None:
        self.process = running.chosen(process)
        self._socket = connected(running.board_folder(self.process) / CONTROL, f"`krait run` {self.process}")
        self._socket.settimeout(ANSWER_SECONDS)
        self._lines = self._socket.makefile("rb")

    def command(self, line: str) -> tuple[str, bool]:
        """What the hypervisor prints for a line of its prompt, and whether it did what it was asked to."""
        answer = self._ask({"command": line})
        return answer["text"], not answer["refused"]

    def vms(self) -> list[Record]:
        """A record for each VM."""
        return list(self._ask({"query": "vms"})["records"])

    def trace(self, session: int) -> bytes:
        """The file of a trace that was begun and has ended. It may take a while to come over."""
        self._socket.settimeout(TRACE_SECONDS)
        data = bytes.fromhex(self._ask({"trace": session})["trace"])
        self._socket.settimeout(ANSWER_SECONDS)
        return data

    def host(self) -> Record:
        """The machine's record."""
        found: Record = self._ask({"query": "host"})["records"][0]
        return found

    def _ask(self, request: Record) -> dict[str, Any]:
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            line = self._lines.readline()
        except OSError as error:
            raise KraitError(f"the machine of {self.process} does not answer: {error}", ExitCode.FAILED) from error
        answer: dict[str, Any] = json.loads(line) if line else {}
        if "records" not in answer or (answer["refused"] and "command" not in request):
            raise KraitError(f"the machine of {self.process} has ended", ExitCode.FAILED)
        return answer


def connected(path: Path, what: str) -> socket.socket:
    """A connection to a Unix socket, or a KraitError that names `what` it is of."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with paths.short(path) as name:
            made.connect(name)
    except OSError as error:
        made.close()
        raise KraitError(f"cannot reach {what}: {error.strerror}", ExitCode.FAILED) from error
    return made


def console(name: str, process: int | None) -> ExitCode:
    """Be at one guest's console until it ends, or Ctrl-] Ctrl-C; without a terminal its output alone is shown."""
    chosen = running.chosen(process)
    keys = relay.terminal_keys()
    with connected(running.consoles_of(chosen) / name, f"a guest {name} of `krait run` {chosen}") as guest:
        progress.note(f"  at the console of {name}; Ctrl-] Ctrl-C leaves it")
        try:
            relay.Relay(guest, Screen(sys.stdout.buffer), keys, interrupts=keys is not None).run(None)
        except KeyboardInterrupt:
            pass  # the way to leave
    return ExitCode.OK
