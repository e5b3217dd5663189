"""`krait run --linux` as a user has it: one verb to a root shell."""

import sys
import time

import pexpect

from krait import paths
from krait.machine import Machine
from krait.outcome import ExitCode

LAUNCH_SECONDS = 90
"""Promised from the command to the shell, once images are built; about 15 on an idle machine."""

SECONDS = 120
SHELL = r"/ # "


def test_one_verb_to_a_shell_that_obeys(machine: Machine) -> None:
    """Typing and Ctrl-C reach the shell; `reboot` and a panic start the guest again, `poweroff` ends the machine."""
    start = time.monotonic()
    command = [sys.executable, "-m", "krait", "run", "--linux", "--append", "own.word", "--emulator", machine.emulator]
    terminal = pexpect.spawn(command[0], [*command[1:], "--accel", machine.accel], cwd=str(paths.ROOT), encoding="utf-8",
                             timeout=SECONDS)  # fmt: skip
    try:
        terminal.expect(SHELL)
        assert time.monotonic() - start < LAUNCH_SECONDS
        terminal.send("echo $((6 * 7)) $(id -u) $(tty) $(grep -o own.word /proc/cmdline) " + "x" * 60 + "\r")
        terminal.expect(r"42 0 /dev/ttyS0 own\.word x{60}")
        terminal.send("echo now; sleep 1000\r")
        terminal.expect(r"\nnow")
        terminal.sendintr()
        terminal.expect(SHELL)
        terminal.send("reboot\r")
        terminal.expect(r"reboot: Restarting system")
        terminal.expect(r"vm 'linux' reboots by a reset \(1\)")
        terminal.expect(SHELL)
        terminal.send("echo c >/proc/sysrq-trigger\r")
        terminal.expect(r"Kernel panic - not syncing: sysrq triggered crash")
        terminal.expect(r"vm 'linux' reboots by a reset \(2\)")
        terminal.expect(SHELL)
        terminal.send("poweroff\r")
        terminal.expect(r"vm 'linux' switched itself off")
        terminal.expect(r"ledger: ok")
        terminal.expect(pexpect.EOF)
        assert terminal.wait() == ExitCode.OK
    finally:
        terminal.close(force=True)
