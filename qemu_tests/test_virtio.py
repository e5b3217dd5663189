"""Virtio devices of guests: Linux's own drivers, disks in memory behind them."""

import pytest

from krait.machine import Machine
from qemu_tests.conftest import Boot
from qemu_tests.test_linux import BOOT_SECONDS, expect_user_space, linux, run

SCRATCH = {"name": "scratch", "bus": "memory", "size": "24MiB"}


def test_a_file_system_outlives_a_reboot(machine: Machine, boot: Boot) -> None:
    """Linux makes ext4 on its virtual disk, fills it, reboots, and finds every byte; entropy comes from virtio too."""
    tux = linux(run("cat", "/sys/class/misc/hw_random/rng_current", ";", "disk-check", "/dev/vda", "60"), "krait.end=poweroff")
    console = boot(machine, vms=[{**tux, "disk": [{"disk": "scratch"}]}], disks=[SCRATCH])
    expect_user_space(console)
    console.expect_line("tux", r"virtio_rng\.0")
    console.expect_line("tux", "disk-check: written", BOOT_SECONDS)
    console.expect(r"vm 'tux' reboots by a reset \(1\)")
    console.expect_line("tux", "disk-check: ok, 60 files", BOOT_SECONDS)
    console.wait_end()
