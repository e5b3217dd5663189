"""What a test holds of a booted machine: its operator console, and how it ended. conftest.py has the fixtures."""

import codecs
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
from pexpect.spawnbase import SpawnBase

from krait import config, disks, images, result, where
from krait.emulator import Emulator, receive
from krait.machine import Machine, Media
from krait.paths import shown
from krait.switchboard import Switchboard

EXPECT_SECONDS = 60.0
"""How long an expected text may take unless a test says otherwise: generous, two emulators share the cores."""

END_SECONDS = 120.0
"""How long a machine may take until it ends by itself unless a test says otherwise."""

CLOSED_SECONDS = 20.0
"""How long an emulator may take to end once its console is closed; it takes milliseconds."""

if TYPE_CHECKING:
    _TextSpawn = SpawnBase[str]
else:
    _TextSpawn = SpawnBase  # generic in its type stubs only

Table = Mapping[str, str | int | bool]
VmTable = Mapping[str, str | int | list[str] | list[int] | Sequence[Table]]


class _ConsoleSpawn(_TextSpawn):
    """pexpect's engine over the console's socket; all that is received is also logged."""

    def __init__(self, emulator: Emulator, log: Path) -> None:
        self._file = log.open("w", encoding="utf-8", newline="")
        super().__init__(timeout=EXPECT_SECONDS, encoding="utf-8", codec_errors="replace")
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._console = emulator.console

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> str:
        """pexpect's way to read: at most `size` bytes within `timeout` seconds."""
        self._console.settimeout(max(timeout, 0.0) or 1e-6 if timeout is not None else None)
        try:
            data = receive(self._console, size)
        except TimeoutError as error:
            raise pexpect.TIMEOUT("Timeout exceeded.") from error
        if not data:
            self.flag_eof = True
            raise pexpect.EOF("End Of File (EOF). The machine ended.")
        text = self._utf8.decode(data)
        self._file.write(text)
        self._file.flush()
        return text

    def send(self, text: str) -> None:
        """Type `text` on the console."""
        self._console.sendall(text.encode())

    def close(self) -> None:
        """Close the log; the emulator owns the socket."""
        self._file.close()


@dataclass(frozen=True)
class End:
    """How a machine ended. `status` is what the hypervisor said, `text` everything the console showed."""

    status: result.Status
    text: str


class Console:
    """The operator console of one booted machine (first serial port).

    Guests' console lines arrive on it as `[vm-name] text`. Patterns are regular expressions over text with `\\r\\n`
    line ends, matched in order: what one `expect` has passed, the next does not see again.
    """

    def __init__(self, emulator: Emulator, elf: Path, log_dir: Path) -> None:
        self.emulator = emulator
        self._elf = elf
        self.log_dir = log_dir
        self.log_path = log_dir / "console.log"
        self._spawn = _ConsoleSpawn(emulator, self.log_path)
        self.ended: End | None = None
        self.guests = None if emulator.channel is None else Switchboard(emulator.channel, log_dir / "guests")

    @property
    def text(self) -> str:
        """Everything received so far."""
        return self.log_path.read_bytes().decode(errors="replace")

    def expect(self, pattern: str, timeout: float = EXPECT_SECONDS) -> re.Match[str]:
        """Wait for `pattern` and return its match; AssertionError with the last lines when it does not come."""
        try:
            self._spawn.expect(pattern, timeout=timeout)
        except pexpect.TIMEOUT:
            raise AssertionError(f"{pattern!r} did not come within {timeout:g} s; {self._story()}") from None
        except pexpect.EOF:
            self.emulator.wait(CLOSED_SECONDS)
            raise AssertionError(f"{pattern!r} had not come at the end; {self._story()}") from None
        found = self._spawn.match
        assert isinstance(found, re.Match)
        return found

    def expect_line(self, vm: str, pattern: str, timeout: float = EXPECT_SECONDS) -> re.Match[str]:
        """Wait for a console line of the guest `vm` that begins with `pattern`."""
        return self.expect(rf"\[{re.escape(vm)}\] {pattern}", timeout)

    def send(self, text: str) -> None:
        """Type `text` as it is."""
        self._spawn.send(text)

    def send_line(self, line: str) -> None:
        """Type one line and Enter."""
        self._spawn.send(line + "\r")

    def wait_end(self, timeout: float = END_SECONDS, expected: result.Status = result.Status.OK) -> End:
        """Wait until the hypervisor has ended the machine; check the status, and the ledger's final line."""
        try:
            self._spawn.expect(pexpect.EOF, timeout=timeout)
        except pexpect.TIMEOUT:
            raise AssertionError(f"the machine did not end within {timeout:g} s; {self._story()}") from None
        exit_status = self.emulator.wait(CLOSED_SECONDS)
        assert exit_status is not None, "the console is closed, the emulator runs on"
        text = self.text
        self.ended = End(result.judge(self.emulator.machine, exit_status, text), text)
        assert self.ended.status is expected, f"ended as {self.ended.status.name}; {self._story()}"
        if expected in result.ORDERLY:
            problem = result.ledger_problem(text)
            assert problem is None, f"{problem}; {self._story()}"
        return self.ended

    def close(self) -> None:
        """End the emulator, take in what it still had said."""
        try:
            self._spawn.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=0.2)
        finally:
            if self.guests is not None:
                self.guests.close()
            self.emulator.stop()
            self._spawn.close()

    def _story(self) -> str:
        """The last lines, and where the machine is."""
        lines = [f"log {shown(self.log_path)} ends with:", *self.text.splitlines()[-25:]]
        return "\n    ".join([*lines, *where.where(self.emulator, self._elf).splitlines()])


def toml(vms: Sequence[VmTable], memory_limit: str | None, host_disks: Sequence[Table] = ()) -> str:
    """The configuration that a test's dictionaries stand for, as a user would write it."""
    text = f'[machine]\nmemory_limit = "{memory_limit}"\n' if memory_limit else ""
    for disk in host_disks:
        text += "[[disk]]\n" + _keys(disk)
    for vm in vms:
        tables = vm.get("disk", [])
        assert not isinstance(tables, str | int)
        text += "[[vm]]\n" + _keys({key: value for key, value in vm.items() if key != "disk"})
        text += "".join("[[vm.disk]]\n" + _keys(table) for table in tables if not isinstance(table, str | int))
    return text


def _keys(table: VmTable) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


def start(machine: Machine, vms: Sequence[VmTable], log_dir: Path, release: bool, end_auto: bool,
          memory_limit: str | None, host_disks: Sequence[Table] = ()) -> Console:  # fmt: skip
    """Build what is needed and boot it; the console's logs, and disks' images, go to `log_dir`."""
    log_dir.mkdir(parents=True, exist_ok=True)
    text = toml(vms, memory_limit, host_disks)
    (log_dir / "vms.toml").write_text(text)
    settings = config.parse(text, "vms.toml", log_dir)
    bundle = images.write_bundle(settings, log_dir / "bundle.cpio", release, end_auto)
    media = Media(images.hypervisor(release), bundle)
    machine = replace(machine, disks=disks.made(settings.disks, log_dir))
    return Console(Emulator(machine, media, log_dir), media.kernel, log_dir)


