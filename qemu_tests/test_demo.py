"""What a newcomer sees: `krait run`, with and without a terminal."""

import re
import subprocess
import sys

import pexpect

from krait import paths
from krait.machine import Machine
from krait.outcome import ExitCode

SECONDS = 400
"""A Linux guest beside two others, on an emulator that shares its cores with another one."""


def krait_run(machine: Machine) -> list[str]:
    """The command of README."""
    return [sys.executable, "-m", "krait", "run", "--emulator", machine.emulator, "--accel", machine.accel]


def test_two_guests_trade_beside_linux(machine: Machine) -> None:
    """Without a terminal it ends by itself; the result is the exit code, standard output holds what the guests said."""
    done = subprocess.run(
        krait_run(machine), cwd=paths.ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
    )
    assert (done.returncode, done.stderr) == (ExitCode.OK, ""), done.stdout
    assert re.search(r"^\[ada\] memory pressure: asked for \d+ frames, released [1-9]\d*$", done.stdout, re.MULTILINE)
    assert re.search(r"^\[bob\] trade ok grew 16384$", done.stdout, re.MULTILINE)
    for name in ("tux", "tove"):
        assert f"[{name}] krait-guest: user space reached\n" in done.stdout
    assert re.search(r"^ledger: ok, .*\nkrait: exit 0x10\n\Z", done.stdout, re.MULTILINE)


def test_a_terminal_gets_the_prompt(machine: Machine) -> None:
    """Guests are coloured, the prompt answers while they run, `poweroff` ends the machine with a clean ledger."""
    command = krait_run(machine)
    terminal = pexpect.spawn(command[0], command[1:], cwd=str(paths.ROOT), encoding="utf-8", timeout=SECONDS)
    try:
        terminal.expect_exact("krait> ")
        terminal.expect(r"\x1b\[36m\[ada\] \x1b\[0mtrade filled")
        terminal.send("list\r")
        terminal.expect(r"tux +linux +running")
        terminal.send("poweroff\r")
        terminal.expect(r"ledger: ok")
        terminal.expect_exact("krait: exit 0x10")
        terminal.expect(pexpect.EOF)
        assert terminal.wait() == ExitCode.OK
    finally:
        terminal.close(force=True)
