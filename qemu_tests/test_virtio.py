"""Virtio devices of guests: Linux's own drivers, disks in memory behind them."""

from krait.machine import Machine
from qemu_tests.conftest import Boot
from qemu_tests.test_linux import BOOT_SECONDS, expect_user_space, linux, run

SCRATCH = {"name": "scratch", "bus": "memory", "size": "24MiB"}


def test_a_file_system_outlives_a_reboot(machine: Machine, boot: Boot) -> None:
    """Linux makes ext4 on its virtual disk, fills it, reboots, and finds every byte; entropy comes from virtio too.

    Interrupts are messages on one machine, and go by line on the other.
    """
    words, interrupt = (["pci=nomsi"], "IO-APIC +10-fasteoi +virtio1") if machine.emulator == "bochs" else ([], "PCI-MSI .*virtio1-req.0")
    check = ("cat", "/sys/class/misc/hw_random/rng_current", ";", "disk-check", "/dev/vda", "60", ";", "grep", "virtio", "/proc/interrupts")
    console = boot(machine, vms=[{**linux(*words, run(*check), "krait.end=poweroff"), "disk": [{"disk": "scratch"}]}], disks=[SCRATCH])
    expect_user_space(console)
    console.expect_line("tux", r"virtio_rng\.0")
    console.expect_line("tux", "disk-check: written", BOOT_SECONDS)
    console.expect(r"vm 'tux' reboots by a reset \(1\)")
    console.expect_line("tux", "disk-check: ok, 60 files", BOOT_SECONDS)
    console.expect_line("tux", rf" +\d+: +[1-9]\d* +{interrupt}")
    console.wait_end()
