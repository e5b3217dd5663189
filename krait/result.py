"""How a run ended: what the hypervisor says by QEMU's exit device and on its console, in one status."""

import re
from enum import Enum

from hypervisor import abi
from krait.machine import Machine
from krait.outcome import ExitCode


class Status(Enum):
    """How a machine ended."""

    OK = "every guest ended well"
    GUEST_FAILED = "a guest failed"
    PANIC = "the hypervisor stopped by an error of its own"
    NO_VIRTUALIZATION = "the machine has no hardware virtualization"
    RESET = "the machine reset or died without a word"

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of `krait run` for it."""
        return ExitCode.OK if self is Status.OK else ExitCode.FAILED


ORDERLY = (Status.OK, Status.GUEST_FAILED)
"""Ends after which the ledger has been checked."""

BY_VALUE = {
    abi.EXIT_OK: Status.OK,
    abi.EXIT_GUEST_FAILED: Status.GUEST_FAILED,
    abi.EXIT_PANIC: Status.PANIC,
    abi.EXIT_NO_VIRTUALIZATION: Status.NO_VIRTUALIZATION,
}

END_LINE = re.compile(r"(?:^|\x1b\[K)krait: exit (0x[0-9a-f]+)", re.MULTILINE)
"""The hypervisor's last line; the number is the value it writes to QEMU's exit device. Guests cannot write it: their
lines carry a prefix."""

LEDGER_LINE = re.compile(r"(?:^|\x1b\[K)ledger: (.*?)\r?$", re.MULTILINE)


def judge(machine: Machine, exit_status: int, console: str) -> Status:
    """The status from the emulator's exit status and all that the console showed.

    QEMU's exit status is 2 v + 1 for the value v. Bochs ends with 0 (magic break) or 1 (shutdown), whatever the value is,
    so there the hypervisor's last line tells. Where the two do not agree the machine died.
    """
    lines = END_LINE.findall(console)
    said = BY_VALUE.get(int(lines[-1], 16), Status.RESET) if lines else Status.RESET
    if machine.emulator == "bochs":
        return said if exit_status == (0 if said is Status.OK else 1) else Status.RESET
    told = BY_VALUE.get(exit_status >> 1, Status.RESET) if exit_status > 0 and exit_status & 1 else Status.RESET
    return told if told is said else Status.RESET


def ledger_problem(console: str) -> str | None:
    """What is wrong with the ledger's final line: None when the last one says that every frame is accounted for."""
    lines = LEDGER_LINE.findall(console)
    if not lines:
        return "no final line of the ledger"
    last: str = lines[-1]
    return None if last.startswith("ok") else f"ledger: {last}"
