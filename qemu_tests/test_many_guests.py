"""Guests in numbers: a thousand of 256 KiB, and PV guests with as many vCPUs as there can be."""

import re
import socket

import pytest

from krait import paths
from krait.machine import Machine
from krait.switchboard import Switchboard
from qemu_tests.conftest import Boot
from qemu_tests.test_pv_guests import lines, pv

GUESTS = 1000
BOOT_SECONDS = 300.0
"""A thousand records are 360 KiB on an emulated serial line."""


def ask(guests: Switchboard, name: str, text: str, answer: str) -> None:
    """Type a line on a guest's console and wait for its answer. (pexpect's select knows 1024 descriptors; here are more.)"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        with paths.short(guests.folder / name) as path:
            connection.connect(path)
        connection.settimeout(BOOT_SECONDS)
        connection.sendall(text.encode() + b"\n")
        heard = b""
        while answer.encode() not in heard:
            data = connection.recv(4096)
            assert data, f"{name} is gone, having said {heard!r}"
            heard += data


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_a_thousand_guests(machine: Machine, boot: Boot) -> None:
    """All live at once in a machine of 512 MiB, each answers for itself, and they end one by one."""
    names = [f"g{number}" for number in range(GUESTS)]
    console = boot(machine, [pv(name, "echo", memory="256KiB") for name in names], debug=False, channel=True)
    console.expect("1000 started", BOOT_SECONDS)
    console.send_line("list 990")
    console.expect(r"998 g998 +pv +running +100 +1  256 KiB.*\n.* 999 g999 ", BOOT_SECONDS)
    guests = console.guests
    assert guests is not None and guests.ready.wait(BOOT_SECONDS)
    for name in names:
        ask(guests, name, f"{name} lives", f"heard: {name} lives\n")
    records = {record["name"]: record for record in guests.vms(BOOT_SECONDS)}
    assert list(records) == names
    for record in records.values():
        assert record["state"] == "running" and record["cpu_ns"] > 0 and record["console_lost"] == 0
        assert record["overhead_frames"] * 4 <= 128, "docs/numbers.md: KiB beyond its RAM"
        assert 0 < record["private_frames"] * 4 <= 256
    assert guests.command("ledger", BOOT_SECONDS).text.startswith("ledger: ok")
    assert re.search(r"error", guests.command("log 128", BOOT_SECONDS).text) is None
    for name in names:
        ask(guests, name, "quit", "")
    end = console.wait_end(timeout=BOOT_SECONDS)
    assert len(re.findall(r"result: vm 'g\d+' ended with code 0", end.text)) == GUESTS


@pytest.mark.parametrize("machine", ["svm", "vtx", "svm2", "vtx2"], indirect=True)
def test_pv_guests_with_many_vcpus(machine: Machine, boot: Boot) -> None:
    """64 vCPUs in 512 KiB all count; 8 and 64 interrupt each other, and none of the interrupts is lost."""
    end = boot(
        machine,
        [
            {**pv("spin", "spin-all", "ms=200", memory="512KiB"), "vcpus": 64},
            {**pv("few", "ipi-storm", "ipis=100", memory="256KiB"), "vcpus": 8},
            {**pv("many", "ipi-storm", "ipis=5", memory="1MiB"), "vcpus": 64},
            {**pv("one", "ipi-storm", "ipis=20", memory="256KiB"), "vcpus": 1},
        ],
    ).wait_end(timeout=BOOT_SECONDS)
    counted = re.fullmatch(r"spin-all: 64 vCPUs counted, the least (\d+), the most \d+", lines(end, "spin")[0])
    assert counted is not None and int(counted[1]) > 0
    assert lines(end, "few") == ["ipi-storm: one by one: 800 of 800 taken", "ipi-storm: to all others: 700 of 700 taken"]
    assert lines(end, "many") == ["ipi-storm: one by one: 320 of 320 taken", "ipi-storm: to all others: 315 of 315 taken"]
    assert lines(end, "one") == ["ipi-storm: one by one: 20 of 20 taken", "ipi-storm: to all others: 0 of 0 taken"]
