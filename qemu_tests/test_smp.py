"""Several host CPUs: guests run on them in parallel, whatever ends or fails on one leaves the others whole."""
import re
import subprocess
from pathlib import Path

import pytest

from krait import config, images
from krait.machine import Links, Machine, Media, command_line
from krait.result import Status
from qemu_tests import harness
from qemu_tests.conftest import Boot
from qemu_tests.harness import VmTable

TWO = pytest.mark.parametrize("machine", ["svm2", "vtx2"], indirect=True)
SVM = pytest.mark.parametrize("machine", ["svm2"], indirect=True)


def spin(name: str, ms: int, weight: int = 100) -> VmTable:
    return {"name": name, "kind": "pv", "memory": "8MiB", "weight": weight, "workload": "spin", "cmdline": f"ms={ms}"}


def iterations(text: str) -> dict[str, int]:
    """What each guest counted."""
    return {name: int(count) for name, count in re.findall(r"^\[(\w+)\] iterations (\d+)", text, re.MULTILINE)}


@pytest.mark.parametrize("machine", ["vtx2"], indirect=True)
def test_both_cpus_of_bochs_run_guests(machine: Machine, boot: Boot) -> None:
    """VMX on each of them: three guests share two CPUs, and one alone gets no more than one."""
    text = boot(machine, [spin(name, 400) for name in ("ada", "bob", "cid")]).wait_end().text
    assert "2 of 2 run" in text
    counts = iterations(text)
    alone = iterations(boot(machine, [spin("ada", 400)], cpus=1).wait_end().text)["ada"]
    assert sum(counts.values()) > 1.8 * alone, (counts, alone)
    assert max(counts.values()) - min(counts.values()) < alone * 0.05, (counts, alone)


def test_counted_boots_repeat_on_two_cpus(tmp_path: Path) -> None:
    """Deterministic to the last digit. The console is a pipe: a socket's other end has its own time."""
    settings = config.parse(harness.toml([spin(name, 60) for name in ("ada", "bob", "cid")], None), "vms.toml", tmp_path)
    media = Media(images.hypervisor(True), images.write_bundle(settings, tmp_path / "bundle.cpio", True, True))
    command = command_line(Machine("qemu", cpus=2, icount=True, skip_idle=True), media, Links())
    first, second = (subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150).stdout for _ in range(2))
    assert first == second and "2 of 2 run" in first
    assert len(iterations(first)) == 3


@pytest.mark.parametrize("cpus", [4, 8])
@SVM
def test_more_cpus_than_cores(machine: Machine, boot: Boot, cpus: int) -> None:
    """The lock goes to a CPU that runs, not to the next in line, which may have lost its core: all get on."""
    text = boot(machine, [spin(f"g{index}", 50) for index in range(cpus + 2)], debug=False, cpus=cpus).wait_end(timeout=300).text
    assert f"{cpus} of {cpus} run" in text and len(iterations(text)) == cpus + 2


@SVM
def test_cpus_that_find_no_room_are_named(machine: Machine, boot: Boot) -> None:
    text = boot(machine, [spin("ada", 20)], cpus=10).wait_end(timeout=120).text
    assert "8 of 10 run" in text
    assert "2 left out (no room for more), the first has APIC ID 8" in text


@pytest.mark.parametrize("kind, cause", [("pf", "page fault"), ("nmi", "non-maskable interrupt")])
@TWO
def test_a_fault_on_the_other_cpu_names_it(machine: Machine, boot: Boot, kind: str, cause: str) -> None:
    console = boot(machine, [spin("ada", 1_000_000), spin("bob", 1_000_000)], end_auto=False)
    console.expect("krait> ")
    console.send_line(f"debug crash {kind} 1")
    console.expect(r"PANIC: [^\r\n]*\(vector")
    console.expect(r"on CPU 1 of 2")
    text = console.wait_end(expected=Status.PANIC).text
    assert cause in text.lower() and text.count("PANIC") == 1
    assert "krait: exit" in text.splitlines()[-1]


@TWO
def test_a_vm_is_stopped_while_its_vcpu_runs_elsewhere(machine: Machine, boot: Boot) -> None:
    """And all its memory comes back; the machine ends in order with a CPU that has nothing to do."""
    console = boot(machine, [spin("ada", 1_000_000), spin("bob", 1_000_000)], end_auto=False)
    console.expect("krait> ")
    for name in ("ada", "bob"):
        console.send_line(f"stop {name}")
        console.expect("krait> ")
    console.send_line("list")
    console.expect(r"bob +pv +ended")
    console.send_line("poweroff")
    assert "ledger: ok" in console.wait_end().text
