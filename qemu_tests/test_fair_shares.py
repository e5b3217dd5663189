"""Sixteen guests that spin: what they count themselves, and what they are charged, against the ideal share."""

import os
from collections.abc import Sequence
from dataclasses import replace

import pytest

from krait.machine import Machine
from qemu_tests.conftest import Boot

VIRTUAL_MS = 10_000
BEGIN_MS = 200
ASKED_MS = 9_400
EQUAL = [100] * 16
UNEQUAL = [100, 200, 400, 800] * 4


def guests(weights: list[int], look: int = 2000) -> list[dict[str, str | int]]:
    cmdline = f"at={BEGIN_MS} ms={VIRTUAL_MS} look={look}"
    return [{"name": f"g{number}", "kind": "pv", "memory": "2MiB", "workload": "spin", "weight": weight, "cmdline": cmdline}
            for number, weight in enumerate(weights)]  # fmt: skip


def jain(values: Sequence[float]) -> float:
    return sum(values) ** 2 / (len(values) * sum(value**2 for value in values))


def per_weight(values: list[int], weights: list[int]) -> list[float]:
    return [value / weight for value, weight in zip(values, weights)]


def off(values: list[int], weights: list[int]) -> float:
    """The greatest part by which one differs from its share of all."""
    return max(abs(value * sum(weights) / (sum(values) * weight) - 1) for value, weight in zip(values, weights))


QUICK = (("svm", 1, UNEQUAL), ("vtx", 1, EQUAL), ("svm", 2, EQUAL), ("vtx", 2, UNEQUAL))
ALL = [(emulator, cpus, weights) for emulator in ("svm", "vtx") for cpus in (1, 2) for weights in (EQUAL, UNEQUAL)]
LONG = pytest.mark.skipif("KRAIT_LONG" not in os.environ, reason="`make long` runs it")


@pytest.mark.parametrize("machine, cpus, weights", [
    pytest.param(*case, id=f"{case[0]}-{case[1]}-{'equal' if case[2] is EQUAL else '1:2:4:8'}", marks=() if case in QUICK else LONG)
    for case in ALL], indirect=["machine"])  # fmt: skip
def test_sixteen_spinning_guests_get_their_shares(machine: Machine, boot: Boot, cpus: int, weights: list[int]) -> None:
    # Virtual time goes by instructions, not by what the host has time for; on Bochs it always does.
    counted = replace(machine, cpus=cpus, icount_shift=4)
    look = 400 if machine.emulator == "qemu" and cpus == 2 else 2000  # iterations up to a PAUSE: there the CPUs execute in turns, which are to be short
    clock = {"name": "clock", "kind": "pv", "memory": "2MiB", "workload": "hello", "cmdline": f"delay={ASKED_MS}"}
    console = boot(counted, [*guests(weights, look), clock], debug=False, end_auto=False, icount=machine.emulator == "qemu")
    console.expect("krait> ", timeout=120)
    console.send_line("shares reset")
    console.expect("counted from now on")
    console.expect_line("clock", "", timeout=900)  # it slept until now, the others still spin
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
        line = console.expect(r"\[(g\d+)\] iterations (\d+)\r\n", timeout=300)
        counts[line[1]] = int(line[2])
    for number, weight in enumerate(weights):
        due = sum(counts.values()) * weight / sum(weights)
        assert counts[f"g{number}"] == pytest.approx(due, rel=0.01)
    if weights is EQUAL:
        assert jain(charged) >= 0.9999 and jain(list(counts.values())) >= 0.9999
    counted_all = [counts[f"g{number}"] for number in range(len(weights))]
    print(f"shares: {machine.emulator}, {cpus} CPU, {'equal' if weights is EQUAL else '1:2:4:8'}: off by at most {off(charged, weights):.2%} charged, "
          f"{off(counted_all, weights):.2%} counted by the guests; Jain {jain(per_weight(charged, weights)):.6f} and "
          f"{jain(per_weight(counted_all, weights)):.6f}")  # fmt: skip
    console.send_line("poweroff")
    console.wait_end()


@LONG
@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_sixty_four_vms(machine: Machine, boot: Boot) -> None:
    """63 that spin, one that tells the time: everyone runs, and has had its share after two seconds."""
    clock = {"name": "clock", "kind": "pv", "memory": "2MiB", "workload": "hello", "cmdline": "delay=2200"}
    spinning = [{**guest, "cmdline": "at=200 ms=60000 look=2000"} for guest in guests([100] * 63)]
    console = boot(replace(machine, icount_shift=4), [*spinning, clock], debug=False, end_auto=False, icount=True)
    console.expect("krait> ", timeout=120)
    console.send_line("shares reset")
    console.expect_line("clock", "", timeout=600)
    console.send_line("shares")
    console.expect(r"used by guests: (\d+) us\r\n")
    charged = [int(console.expect(rf"  g{number} +100 +(\d+) ")[1]) for number in range(63)]
    for used in charged:
        assert used == pytest.approx(sum(charged) / 63, rel=0.05)
    print(f"64 VMs: off by at most {off(charged, [1] * 63):.2%} charged after {sum(charged) // 1000} ms of CPU")
    console.send_line("poweroff")
    console.wait_end()
