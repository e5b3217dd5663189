"""`krait run --linux` as a user has it: one verb to a root shell."""

import re
import sys
import time

import pexpect
import pytest

from krait import paths
from krait.machine import Machine
from krait.outcome import ExitCode

LAUNCH_SECONDS = 90
"""Promised from the command to the shell, once images are built; about 15 on an idle machine."""

SECONDS = 300
SHELL = r"/ # "


def command(machine: Machine, *words: str) -> list[str]:
    """`krait run --linux` on that machine."""
    return ["-m", "krait", "run", "--linux", "--emulator", machine.emulator, "--accel", machine.accel, *words]


def interrupts(terminal: "pexpect.spawn[str]", source: str) -> int:
    """Of all CPUs, by the next line of /proc/interrupts that ends with `source`."""
    terminal.expect(rf"\d+:((?: +\d+)+) +{source}")
    assert isinstance(terminal.match, re.Match)
    return sum(int(count) for count in terminal.match[1].split())


FOUND = (
    r"Hypervisor detected: KVM",
    r"kvm-clock: Using msrs 4b564d01 and 4b564d00",
    r"x2apic: enabled|x2apic enabled",
    r"TSC deadline timer available",
    r"kvm-guest: setup PV IPIs",
    r"kvm-guest: setup PV sched yield",
    r"kvm-guest: KVM setup pv remote TLB flush",
    r"kvm-guest: PV spinlocks enabled",
)
"""What the kernel says of the platform that it found and uses, with two vCPUs."""

DETACH = "\x1d"
LINES = 500
WAIT = "echo now; sleep 1000"
"""In a shell of its own, which is a job before it says so: a Ctrl-C while the first one is about to start a job ends neither."""


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_the_virtio_console_has_a_shell(machine: Machine) -> None:
    """By interrupts, both ways: the shell is on hvc0 and the UART is quiet; typing, Ctrl-C and much output go through whole. The kernel uses what
    it is shown, and goes on where it was when all state of its devices is saved, overwritten and restored under it."""
    words = command(machine, "--console", "virtio", "--vcpus", "2")
    terminal = pexpect.spawn(sys.executable, words, cwd=str(paths.ROOT), encoding="utf-8", timeout=SECONDS)
    try:
        terminal.expect(r"krait-guest: user space reached")
        terminal.expect(SHELL)
        terminal.send("grep ttyS0 /proc/interrupts; echo $((6 * 7)) $(tty) " + "x" * 60 + "\r")
        by_uart = interrupts(terminal, r"IO-APIC +4-edge +ttyS0")
        terminal.expect(r"42 /dev/hvc0 x{60}")
        terminal.send(f"sh -c 'seq 1 {LINES}; {WAIT}'\r")
        terminal.expect(r"\r\nnow")
        assert str(terminal.before).split()[-LINES:] == [str(line) for line in range(1, LINES + 1)]
        terminal.sendintr()
        terminal.expect(SHELL)
        terminal.send("dmesg; echo all said\r")
        terminal.expect(r"\r\nall said")
        assert [pattern for pattern in FOUND if not re.search(pattern, str(terminal.before))] == []
        terminal.send("(sleep 1; echo went-on; taskset 2 dd if=/dev/hwrng of=/tmp/random bs=64 count=4) & echo asleep\r")
        terminal.expect(r"\r\nasleep")
        terminal.send(DETACH)
        for line, answer in (("pause", "paused"), ("debug state", r"\d+ bytes of device state saved, overwritten and restored"), ("resume", "resumed"),
                             ("attach", "attached to linux")):  # fmt: skip
            terminal.send(f"{line} linux\r")
            terminal.expect(answer)
        terminal.expect("went-on")
        terminal.send("wait; wc -c /tmp/random; grep -E 'ttyS0|virtio' /proc/interrupts; poweroff\r")
        terminal.expect("256 /tmp/random")
        assert interrupts(terminal, r"IO-APIC +4-edge +ttyS0") == by_uart
        assert interrupts(terminal, r"PCI-MSI +\S+ +virtio\d+-input") > 0
        terminal.expect(r"vm 'linux' switched itself off")
        terminal.expect(pexpect.EOF)
        assert terminal.wait() == ExitCode.OK
    finally:
        terminal.close(force=True)


def test_one_verb_to_a_shell_that_obeys(machine: Machine) -> None:
    """Typing and Ctrl-C reach the shell; `reboot` and a panic start the guest again, `poweroff` ends the machine."""
    start = time.monotonic()
    words = command(machine, "--append", "own.word")
    terminal = pexpect.spawn(sys.executable, words, cwd=str(paths.ROOT), encoding="utf-8", timeout=SECONDS)
    try:
        terminal.expect(SHELL)
        assert time.monotonic() - start < LAUNCH_SECONDS
        terminal.send("echo $((6 * 7)) $(id -u) $(tty) $(grep -o own.word /proc/cmdline) " + "x" * 60 + "\r")
        terminal.expect(r"42 0 /dev/ttyS0 own\.word x{60}")
        terminal.send(f"sh -c '{WAIT}'\r")
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
