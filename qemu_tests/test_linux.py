"""Debian's stock Linux as a guest: it boots, its devices work, it ends as it means to."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from krait import linux_image, newc, paths, tools
from krait.config import SHELL_CMDLINE
from krait.machine import Machine
from krait.result import Status
from qemu_tests.conftest import Boot
from qemu_tests.harness import Console, VmTable
from qemu_tests.kernel_lines import ALLOWED

BOOT_SECONDS = 300.0
"""Bochs takes about 40 CPU seconds to user space, and another test may have the other core."""

PROGRAMS = paths.ROOT / "tests" / "linux"
BOCHS_STARTS = 946_681_200
"""Unix time at which krait/bochsrc lets Bochs begin."""


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


@svm_only
def test_boots_and_powers_off(machine: Machine, boot: Boot) -> None:
    """To user space, and out by ACPI; all memory comes back. Under Bochs `krait run --linux` shows it (test_run_linux.py)."""
    console = boot(machine, vms=[linux("krait.end=poweroff")])
    expect_user_space(console)
    console.wait_end()


@svm_only
def test_pvh_entry(machine: Machine, boot: Boot) -> None:
    """The same kernel as an ELF file, entered in 32-bit protected mode: file system, command line and ACPI tables are found."""
    console = boot(machine, vms=[{**linux("krait.end=poweroff"), "boot": "pvh"}])
    expect_user_space(console)
    console.wait_end()


@svm_only
def test_the_general_kernel_boots(machine: Machine, boot: Boot) -> None:
    """Debian's kernel for all machines, unpacked by itself."""
    guest: VmTable = {**linux("krait.end=poweroff", memory="192MiB"), "kernel": str(linux_image.general_kernel())}
    console = boot(machine, vms=[guest])
    console.expect_line("tux", r"krait-guest: Linux 6\.1\.\S+-\d+-amd64 x86_64", BOOT_SECONDS)
    console.wait_end()


CLOCK_SECONDS = 60
CLOCK_ERROR = 0.001


def test_clock_interrupts_and_messages(machine: Machine, boot: Boot) -> None:
    """60 s of the guest are 60 s by the TSC and by the machine's HPET, which no guest time is made of; the local timer and the UART
    interrupt; the date is the machine's; the kernel prints nothing of level 4 or below but what kernel_lines.py explains."""
    program = ("cat /proc/interrupts /sys/devices/system/clocksource/clocksource0/current_clocksource; date +%s; dmesg -r | grep '^<[0-4]>'; "
               f"echo up $(cat /proc/uptime); sleep {CLOCK_SECONDS}; echo up $(cat /proc/uptime)")  # fmt: skip
    console = boot(replace(machine, skip_idle=True), vms=[linux(run(*program.split()))], end_auto=False, icount=machine.emulator == "qemu")
    console.expect("guests .* started")
    console.send_line("stamps on")
    console.send_line("clock")
    tsc_before, hpet_before = clocks(console)
    console.expect_line("tux", r"[\d.]+ krait-guest: user space reached", BOOT_SECONDS)
    assert int(console.expect_line("tux", r"[\d.]+  +4: +(\d+) +IO-APIC +4-edge +ttyS0")[1]) > 0
    assert int(console.expect_line("tux", r"[\d.]+ *LOC: +(\d+) +Local timer interrupts")[1]) > 10
    console.expect_line("tux", r"[\d.]+ (kvm-clock|tsc)\s")
    assert int(console.expect_line("tux", r"[\d.]+ (\d+)\s")[1]) > BOCHS_STARTS
    (first, guest_before), (last, guest_after) = (uptime(console) for _ in range(2))
    assert abs((guest_after - guest_before) / (last - first) - 1) <= CLOCK_ERROR
    assert guest_after - guest_before >= CLOCK_SECONDS
    console.send_line("clock")
    tsc, hpet = clocks(console)
    assert tsc - tsc_before >= CLOCK_SECONDS and abs((tsc - tsc_before) / (hpet - hpet_before) - 1) <= CLOCK_ERROR
    console.send_line("poweroff")
    assert unexplained(console.wait_end().text) == []


def unexplained(said: str) -> list[str]:
    """Kernel lines of level 4 and below, as `dmesg -r` shows them, that kernel_lines.py does not have; all must have come."""
    assert "lines lost" not in said
    lines = [line.rstrip() for line in re.findall(r"\[tux\] (?:[\d.]+ )?<[0-4]>\[ *\d+\.\d+\] (.*)", said)]
    return [line for line in lines if not any(re.fullmatch(known, line) for known, _ in ALLOWED)]


def clocks(console: Console) -> tuple[float, float]:
    """What the operator's `clock` says: seconds by the TSC, and by the HPET."""
    tsc = int(console.expect(r"  TSC  (\d+) us since boot")[1])
    return tsc / 1e6, int(console.expect(r"  HPET (\d+) us since boot")[1]) / 1e6


def uptime(console: Console) -> tuple[float, float]:
    """The next line with the guest's own time: seconds by the hypervisor's stamp, and by the guest."""
    found = console.expect_line("tux", r"([\d.]+) up ([\d.]+) ", BOOT_SECONDS)
    return float(found[1]), float(found[2])


VECTOR_ROUNDS = 10


def test_vector_registers_are_each_guests_own(machine: Machine, boot: Boot, tmp_path: Path) -> None:
    """Two Linux guests and a PV guest keep patterns in all of them while they take turns on one CPU."""
    initrd = with_program(tmp_path, "vectors")
    guests = [{**linux(run("/bin/vectors", str(seed), "3", str(VECTOR_ROUNDS)), "krait.end=poweroff", name=name), "initrd": str(initrd)}
              for seed, name in enumerate(("one", "two"))]  # fmt: skip
    beside: VmTable = {"name": "pv", "kind": "pv", "memory": "16MiB", "workload": "registers", "cmdline": "switches=2000"}
    end = boot(machine, vms=[*guests, beside]).wait_end(BOOT_SECONDS)
    for name in ("one", "two"):
        rounds = re.search(rf"\[{name}\] vectors ok avx (\d+) rounds", end.text)
        assert rounds is not None and int(rounds[1]) >= VECTOR_ROUNDS
    assert "[pv] registers ok 2000 switches" in end.text


STRESS_OPERATIONS = {"qemu": {"cpu": 20, "vm": 500, "timer": 500, "signal": 2000, "futex": 100},
                     "bochs": {"cpu": 4, "vm": 20, "timer": 100, "signal": 200, "futex": 20}}  # fmt: skip
STRESS_BYTES = {"qemu": "16M", "bochs": "1M"}


def test_stress_ng_finds_no_failure(machine: Machine, boot: Boot, tmp_path: Path) -> None:
    """Debian's stress-ng on two vCPUs: a fixed number of operations of each class, with its own checks of what they did."""
    members = [*linux_image.members(), *linux_image.program_members("stress-ng", "usr/bin/stress-ng")]
    whole = paths.write_whole(tmp_path / "initramfs.cpio", newc.write(members))
    initrd = tmp_path / "initramfs.lz4"  # firmware reads 19 instructions a byte
    subprocess.run([tools.require("lz4"), "-l", "-q", str(whole), str(initrd)], check=True)
    wanted = STRESS_OPERATIONS[machine.emulator]
    stress = f"/usr/bin/stress-ng --verify --metrics-brief --temp-path /tmp --vm-bytes {STRESS_BYTES[machine.emulator]}"
    program = " && ".join(f"{stress} --{name} 2 --{name}-ops {operations}" for name, operations in wanted.items())
    words = (run(*f"{program}; echo ended with $?".split()), "krait.end=poweroff")
    guest: VmTable = {**linux(*words, memory="320MiB"), "vcpus": 2, "initrd": str(initrd)}
    said = boot(machine, vms=[guest]).wait_end(2 * BOOT_SECONDS).text
    assert "[tux] ended with 0" in said
    for name, operations in wanted.items():
        done = re.search(rf"\[tux\] stress-ng: metrc: +\[\d+\] {name} +(\d+) ", said)
        assert done is not None and int(done[1]) >= operations, name


CPUS = 4


@pytest.mark.parametrize("machine", ["svm2", "vtx"], indirect=True)
def test_several_vcpus_compute_by_one_clock(machine: Machine, boot: Boot, tmp_path: Path) -> None:
    """On two host CPUs, or on one; all of them are online and work; no CPU's clock is behind what another one has read; nothing new to complain about."""
    initrd = with_program(tmp_path, "clocks")
    program = "/bin/clocks 3; dmesg -r | grep '^<[0-4]>'"
    guest: VmTable = {**linux(run(*program.split()), "krait.end=poweroff"), "vcpus": CPUS, "initrd": str(initrd)}
    said = boot(machine, vms=[guest]).wait_end(BOOT_SECONDS).text
    found = re.search(rf"\[tux\] clocks ok {CPUS} CPUs((?: \d+){{{CPUS}}})", said)
    assert found is not None and all(int(rounds) > 1000 for rounds in found[1].split())
    assert unexplained(said) == []


def with_program(folder: Path, name: str) -> Path:
    """Our initial file system with tests/linux/NAME.c in its /bin."""
    built = folder / name
    subprocess.run([tools.require("gcc"), "-static", "-pthread", "-O1", "-o", str(built), str(PROGRAMS / f"{name}.c")], check=True)
    extra = newc.Member(f"bin/{name}", built.read_bytes(), newc.S_IFREG | 0o755)
    return paths.write_whole(folder / "initramfs.cpio", newc.write([*linux_image.members(), extra]))


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


def test_reboots_alone_by_a_triple_fault(machine: Machine, boot: Boot) -> None:
    """`reboot` with reboot=t starts the guest again, with its clock at 0 and nobody else's; the second life powers off by hand."""
    busy: VmTable = {"name": "busy", "kind": "pv", "memory": "16MiB", "workload": "idle", "cmdline": "ms=15000 step=1000"}
    console = boot(machine, vms=[linux("reboot=t"), busy])
    expect_user_space(console)
    console.expect_line("tux", r".*job control|.*/ #|", BOOT_SECONDS)
    console.send_line("attach tux")
    console.send_line("reboot -f")
    console.expect(r"vm 'tux' reboots by a triple fault \(1\)", BOOT_SECONDS)
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
    guests = [linux(*words, name="one"), linux(*words, name="two"), busy]
    end = boot(machine, vms=guests, debug=False).wait_end(BOOT_SECONDS)  # a debug image takes time of its own, which is stolen too
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
