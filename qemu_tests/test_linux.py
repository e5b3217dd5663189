"""Debian's stock Linux as a guest: it boots, its devices work, it ends as it means to."""

import re
from pathlib import Path

import pytest

from krait import linux_image
from krait.config import SHELL_CMDLINE
from krait.machine import Machine
from krait.result import Status
from qemu_tests.conftest import Boot
from qemu_tests.harness import Console, VmTable

BOOT_SECONDS = 300.0
"""Bochs takes about 40 CPU seconds to user space, and another test may have the other core."""

BOCHS_STARTS = 946_681_200
"""Unix time at which krait/bochsrc lets Bochs begin."""

BENIGN = (  # docs/linux-guests.md has the reasons
    r"Speculative Return Stack Overflow: .*",
    r"PMU not available due to virtualization, using software events only\.",
    r"MDS: .*|MMIO Stale Data: .*|TAA: .*|SRBDS: .*|L1TF: .*",
)


def linux(*words: str, name: str = "tux", memory: str = "128MiB", weight: int = 100) -> VmTable:
    """A Linux guest with `words` on its command line behind the usual ones."""
    cmdline = " ".join((SHELL_CMDLINE, *words))
    return {"name": name, "kind": "linux", "memory": memory, "weight": weight, "cmdline": cmdline}


def run(*program: str) -> str:
    """The word that lets /init run a program."""
    return "krait.run=" + ",".join(program)


def expect_user_space(console: Console, vm: str = "tux") -> None:
    """/init prints its marker, and the kernel's version."""
    console.expect_line(vm, "krait-guest: user space reached", BOOT_SECONDS)
    console.expect_line(vm, r"krait-guest: Linux 6\.1\.\S+-cloud-amd64 x86_64, \d+ kB, up (\d+)")


svm_only = pytest.mark.parametrize("machine", ["svm"], indirect=True)


def test_boots_and_powers_off(machine: Machine, boot: Boot) -> None:
    """To user space, and out by ACPI; all memory comes back."""
    console = boot(machine, vms=[linux("krait.end=poweroff")])
    expect_user_space(console)
    console.wait_end()


def test_interrupts_and_clock(machine: Machine, boot: Boot) -> None:
    """The local timer ticks, the UART interrupts by the I/O APIC, the clock is KVM's or the TSC, and the date is that of the machine."""
    show = ("cat", "/proc/interrupts", "/sys/devices/system/clocksource/clocksource0/current_clocksource", ";", "date", "+%s")
    console = boot(machine, vms=[linux(run(*show), "krait.end=poweroff")])
    expect_user_space(console)
    assert int(console.expect_line("tux", r" +4: +(\d+) +IO-APIC +4-edge +ttyS0")[1]) > 0
    assert int(console.expect_line("tux", r" *LOC: +(\d+) +Local timer interrupts")[1]) > 50
    console.expect_line("tux", r"(kvm-clock|tsc)\s")
    date = int(console.expect_line("tux", r"(\d+)\s")[1])
    assert date > BOCHS_STARTS
    console.wait_end()


def test_nothing_to_complain_about(machine: Machine, boot: Boot) -> None:
    """No line of level 4 or below but those that docs/linux-guests.md explains."""
    console = boot(machine, vms=[linux(run("dmesg", "-r"), "krait.end=poweroff")])
    expect_user_space(console)
    said = console.wait_end(BOOT_SECONDS).text
    lines = [line.rstrip() for line in re.findall(r"\[tux\] <[0-4]>\[ *\d+\.\d+\] (.*)", said)]
    assert "Linux version" in said
    assert [line for line in lines if not any(re.fullmatch(known, line) for known in BENIGN)] == []


@svm_only
@pytest.mark.parametrize(
    ("program", "status"),
    [
        (("halt", "-f"), Status.OK),
        (("reboot", "-f"), Status.GUEST_FAILED),
        (("echo", "c", ">/proc/sysrq-trigger"), Status.GUEST_FAILED),
    ],
    ids=["halt", "reset", "panic"],
)
def test_other_ends(machine: Machine, boot: Boot, program: tuple[str, ...], status: Status) -> None:
    """A halt ends the VM well; a reset, and so a panic, ends with code 2 a VM that may not reboot."""
    console = boot(machine, vms=[{**linux(run(*program)), "reboots": 0}])
    expect_user_space(console)
    console.wait_end(expected=status)


@svm_only
def test_reboots_alone(machine: Machine, boot: Boot) -> None:
    """`reboot` starts the guest again, with its clock at 0 and nobody else's; the second life powers off by hand."""
    busy: VmTable = {"name": "busy", "kind": "pv", "memory": "16MiB", "workload": "idle", "cmdline": "ms=15000 step=1000"}
    console = boot(machine, vms=[linux(), busy])
    expect_user_space(console)
    console.expect_line("tux", r".*job control|.*/ #|", BOOT_SECONDS)
    console.send_line("attach tux")
    console.send_line("reboot -f")
    console.expect(r"vm 'tux' reboots by a reset \(1\)")
    console.expect("krait-guest: user space reached", BOOT_SECONDS)
    uptime = int(console.expect(r"krait-guest: Linux 6\.1\.\S+-cloud-amd64 x86_64, \d+ kB, up (\d+)")[1])
    assert uptime < 40
    console.send_line("poweroff -f")
    end = console.wait_end(BOOT_SECONDS)
    assert end.text.count("vm 'tux' reboots") == 1
    assert "result: vm 'tux' ended with code 0" in end.text and "result: vm 'busy' ended with code 0" in end.text
    assert end.text.count("[busy]") == 1


@svm_only
def test_two_side_by_side(machine: Machine, boot: Boot) -> None:
    """Two Linux guests share the CPU with a PV guest; each ends by itself, and knows how long it had to wait."""
    busy: VmTable = {"name": "busy", "kind": "pv", "memory": "16MiB", "workload": "spin", "cmdline": "ms=1000"}
    words = (run("grep", "cpu0", "/proc/stat"), "krait.end=poweroff")
    end = boot(machine, vms=[linux(*words, name="one"), linux(*words, name="two"), busy]).wait_end(BOOT_SECONDS)
    for vm in ("one", "two"):
        assert f"[{vm}] krait-guest: user space reached" in end.text
        assert f"result: vm '{vm}' ended with code 0" in end.text
        # user, nice, system, idle, iowait, irq, softirq, steal, in ticks of 10 ms (proc(5))
        found = re.search(rf"\[{vm}\] cpu0((?: \d+){{8}})", end.text)
        assert found is not None
        ticks = [int(number) for number in found[1].split()]
        assert 0.3 * sum(ticks) < ticks[7] < 0.8 * sum(ticks), ticks


@svm_only
def test_what_is_no_kernel_is_refused(machine: Machine, boot: Boot, tmp_path: Path) -> None:
    """A file that is not a bzImage is refused by name by the hypervisor too; a guest beside it runs."""
    damaged = bytearray(linux_image.kernel().read_bytes())
    damaged[0x206:0x208] = b"\x00\x02"  # a boot protocol without a 64-bit entry
    (tmp_path / "old").write_bytes(damaged)
    console = boot(machine, vms=[{**linux(name="old"), "kernel": str(tmp_path / "old")}, linux("krait.end=poweroff")])
    console.expect("vm 'old' refused: its kernel cannot be loaded")
    expect_user_space(console)
    console.wait_end(expected=Status.GUEST_FAILED)
