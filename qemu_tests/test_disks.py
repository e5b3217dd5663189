"""The machine's disks: each is found, named and driven; what is written is read back, whatever the sizes and pieces."""

import re

import pytest

from krait.machine import Machine
from qemu_tests.conftest import Boot
from qemu_tests.harness import Console, Table

WAITING = {"name": "waits", "kind": "pv", "workload": "echo"}
SIZE = "16MiB"
BUSES = {"qemu": ["virtio", "nvme", "ata"], "bochs": ["ata"]}


def disk(name: str, bus: str, size: str = SIZE) -> Table:
    """One of the machine's disks."""
    return {"name": name, "bus": bus, "size": size}


def result_of(console: Console, name: str) -> re.Match[str]:
    """Run the debug image's test of a disk."""
    console.send_line(f"debug disk {name}")
    return console.expect(r"disk test (\w+): (\d+) requests, (\d+) sectors read back, (\d+) wrong, (\d+) errors")


def test_drivers(machine: Machine, boot: Boot) -> None:
    """Every driver that this emulator has a device for: requests of 1 to 64 sectors, many in flight, a flush between."""
    buses = [*BUSES[machine.emulator], "memory"]
    console = boot(machine, vms=[WAITING], end_auto=False, disks=[disk(f"scratch-{bus}", bus) for bus in buses])
    for bus in buses:
        console.expect(r"disk \w+ +16 MiB, serial \"[\w-]*\"")
    console.expect("krait> ")
    for bus in buses:
        assert result_of(console, f"scratch-{bus}").groups()[1:] == ("1024", "16640", "0", "0"), bus
    console.send_line("disks")
    for _ in buses:
        console.expect(r"ok +16 +0 +\d+ +0 +0")
    console.send_line("poweroff")
    console.wait_end()


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_two_drives_share_a_channel(machine: Machine, boot: Boot) -> None:
    """Master and slave of one IDE channel are told apart."""
    console = boot(machine, vms=[WAITING], end_auto=False, disks=[disk("one", "ata"), disk("two", "ata")])
    console.expect("krait> ")
    for name in ("one", "two"):
        assert result_of(console, name).groups()[3:] == ("0", "0")
    console.send_line("poweroff")
    console.wait_end()
