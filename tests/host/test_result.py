"""How a run is judged: exit status and last line must agree, and guests cannot fake it."""

import pytest

from krait import result
from krait.machine import Machine
from krait.result import Status

QEMU, BOCHS = Machine("qemu"), Machine("bochs")


@pytest.mark.parametrize(
    ("machine", "exit_status", "console", "expected"),
    [
        (QEMU, 33, "krait: exit 0x10\r\n", Status.OK),
        (QEMU, 35, "krait: exit 0x11\r\n", Status.GUEST_FAILED),
        (QEMU, 37, "krait: exit 0x12\r\n", Status.PANIC),
        (QEMU, 39, "krait: exit 0x13\r\n", Status.NO_VIRTUALIZATION),
        (QEMU, 0, "", Status.RESET),
        (QEMU, 33, "", Status.RESET),
        (QEMU, 33, "krait: exit 0x11\r\n", Status.RESET),
        (QEMU, -9, "krait: exit 0x10\r\n", Status.RESET),
        (QEMU, 33, "[ada] krait: exit 0x10\r\n", Status.RESET),
        (BOCHS, 0, "ledger: ok\r\nkrait> \r\x1b[Kkrait: exit 0x10\r\n", Status.OK),
        (BOCHS, 1, "krait: exit 0x11\r\n", Status.GUEST_FAILED),
        (BOCHS, 0, "", Status.RESET),
        (BOCHS, 1, "krait: exit 0x10\r\n", Status.RESET),
        (BOCHS, 0, "[ada] krait: exit 0x10\r\n", Status.RESET),
    ],
)
def test_judgement(machine: Machine, exit_status: int, console: str, expected: Status) -> None:
    assert result.judge(machine, exit_status, console) is expected


def test_the_ledger_must_have_the_last_word_and_it_must_be_ok() -> None:
    assert result.ledger_problem("ledger: ok, 3 frames\r\nkrait: exit 0x10\r\n") is None
    assert result.ledger_problem("[ada] ledger: ok\r\n") == "no final line of the ledger"
    assert result.ledger_problem("ledger: ok\r\nledger: frame 0x12 is private to none\r\n") == "ledger: frame 0x12 is private to none"
