"""Virtio devices of guests: Linux's own drivers and the PV one, the machine's disks behind them."""

from pathlib import Path

import pytest

from krait import linux_image
from krait.machine import Machine
from krait.result import Status
from qemu_tests import broken_rings, many_requests
from qemu_tests.conftest import Boot
from qemu_tests.test_linux import BOOT_SECONDS, expect_user_space, linux, run

RINGS = 2000

BUSES = {"qemu": "virtio", "bochs": "ata"}
"""Of the machine's disk that guests' disks lie on."""


def test_a_file_system_outlives_a_reboot(machine: Machine, boot: Boot) -> None:
    """Linux makes ext4 on its virtual disk, fills it, reboots, and finds every byte; entropy comes from virtio too.

    Interrupts are messages on one machine, and go by line on the other.
    """
    bochs = machine.emulator == "bochs"
    words, interrupt = (["pci=nomsi"], "IO-APIC +10-fasteoi +virtio1") if bochs else ([], "PCI-MSI .*virtio1-req.0")
    files = 20 if bochs else 60
    scratch = {"name": "scratch", "bus": BUSES[machine.emulator], "size": "24MiB"}
    check = ("cat", "/sys/class/misc/hw_random/rng_current", ";", "disk-check", "/dev/vda", str(files), ";", "grep", "virtio", "/proc/interrupts")
    console = boot(machine, vms=[{**linux(*words, run(*check), "krait.end=poweroff"), "disk": [{"disk": "scratch"}]}], disks=[scratch])
    expect_user_space(console)
    console.expect_line("tux", r"virtio_rng\.0")
    console.expect_line("tux", "disk-check: written", BOOT_SECONDS)
    console.expect(r"vm 'tux' reboots by a reset \(1\)")
    console.expect_line("tux", f"disk-check: ok, {files} files", BOOT_SECONDS)
    console.expect_line("tux", rf" +\d+: +[1-9]\d* +{interrupt}")
    console.wait_end()


def test_boots_from_its_disk(machine: Machine, boot: Boot, tmp_path: Path) -> None:
    """The root file system is on a disk of the machine; what the guest leaves there is there when it boots again."""
    image = linux_image.root_disk(tmp_path / "root.img", 16)
    again = machine.emulator != "bochs"  # where a boot takes long, once is enough
    program = ("mount", "|", "grep", "-w", "/", ";", "cat", "/left", ";", "echo", "left-here", ">/left", ";", "sync")
    tux = linux("rdinit=/bin/boot-root", "root=/dev/vda", run(*program), "krait.end=reboot" if again else "krait.end=poweroff")
    console = boot(machine, vms=[{**tux, "reboots": 1, "disk": [{"disk": "system"}]}],
                   disks=[{"name": "system", "bus": BUSES[machine.emulator], "image": str(image)}])  # fmt: skip
    expect_user_space(console)
    console.expect_line("tux", r"/dev/\S+ on / type ext4")
    if again:
        console.expect(r"vm 'tux' reboots by a reset \(1\)")
        console.expect_line("tux", "left-here", BOOT_SECONDS)
    console.wait_end(expected=Status.GUEST_FAILED if again else Status.OK)


def test_pv_guests_use_disks_beside_a_hostile_one(machine: Machine, tmp_path: Path) -> None:
    """The PV driver writes, flushes, reboots and compares, on a real disk; a neighbour on the same host disk offers broken rings, and lives. `make long`
    offers a hundred thousand."""
    broken, not_broken = broken_rings.offer(machine, RINGS, BUSES[machine.emulator], tmp_path, False)
    assert broken > RINGS // 2 and not_broken > RINGS // 10


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_no_completion_is_lost(machine: Machine, tmp_path: Path) -> None:
    """Of four guests' requests to one disk; `make long` makes a million."""
    assert many_requests.requests(machine, 8000, tmp_path) == 8000
