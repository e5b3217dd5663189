"""Sixteen guests that spin: what they count themselves, and what they are charged, against the ideal share."""

from dataclasses import replace

import pytest

from krait.machine import Machine
from qemu_tests.conftest import Boot

VIRTUAL_MS = 10_000
BEGIN_MS = 200
ASKED_MS = 9_400
EQUAL = [100] * 16
UNEQUAL = [100, 200, 400, 800] * 4


def guests(weights: list[int]) -> list[dict[str, str | int]]:
    cmdline = f"at={BEGIN_MS} ms={VIRTUAL_MS} look=2000"
    return [{"name": f"g{number}", "kind": "pv", "memory": "2MiB", "workload": "spin", "weight": weight, "cmdline": cmdline}
            for number, weight in enumerate(weights)]  # fmt: skip


def jain(values: list[int]) -> float:
    return sum(values) ** 2 / (len(values) * sum(value**2 for value in values))


@pytest.mark.parametrize("machine", ["svm", "vtx"], indirect=True)
@pytest.mark.parametrize("weights", [EQUAL, UNEQUAL], ids=["equal", "1:2:4:8"])
@pytest.mark.parametrize("cpus", [1])
def test_sixteen_spinning_guests_get_their_shares(machine: Machine, boot: Boot, weights: list[int], cpus: int) -> None:
    # Virtual time goes by instructions, not by what the host has time for; on Bochs it always does.
    counted = replace(machine, cpus=cpus, icount_shift=4)
    clock = {"name": "clock", "kind": "pv", "memory": "2MiB", "workload": "hello", "cmdline": f"delay={ASKED_MS}"}
    console = boot(counted, [*guests(weights), clock], debug=False, end_auto=False, icount=machine.emulator == "qemu")
    console.expect("krait> ", timeout=120)
    console.send_line("shares reset")
    console.expect("counted from now on")
    console.expect_line("clock", "", timeout=150)  # it slept until now, the others still spin
    console.send_line("shares")
    found = console.expect(r"(\d+) us of (\d) CPU, used by guests: (\d+) us\r\n")
    elapsed, count = int(found[1]), int(found[2])
    assert ASKED_MS * 900 <= elapsed < (BEGIN_MS + VIRTUAL_MS) * 1000
    rows = [console.expect(rf"  g{number} +(\d+) +(\d+) ") for number in range(len(weights))]
    charged = [int(row[2]) for row in rows]
    assert count == cpus
    for used, weight in zip(charged, weights):
        assert used == pytest.approx(sum(charged) * weight / sum(weights), rel=0.01)
    assert sum(charged) >= 0.95 * elapsed * cpus, "nothing else takes the CPUs"
    counts: dict[str, int] = {}
    for _ in weights:
        line = console.expect(r"\[(g\d+)\] iterations (\d+)\r\n", timeout=120)
        counts[line[1]] = int(line[2])
    for number, weight in enumerate(weights):
        assert counts[f"g{number}"] == pytest.approx(sum(counts.values()) * weight / sum(weights), rel=0.01)
    if weights is EQUAL:
        assert jain(charged) >= 0.9999 and jain(list(counts.values())) >= 0.9999
    console.send_line("poweroff")
    console.wait_end()
