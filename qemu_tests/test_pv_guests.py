"""PV guests side by side: they run, share the CPU by weight, keep their registers and their memory to themselves."""

import re

from krait.machine import Machine
from krait.result import Status
from qemu_tests.conftest import Boot
from qemu_tests.harness import End, VmTable


def pv(name: str, workload: str, cmdline: str = "", memory: str = "16MiB", weight: int = 100) -> VmTable:
    """One PV guest."""
    return {"name": name, "kind": "pv", "memory": memory, "weight": weight, "workload": workload, "cmdline": cmdline}


def lines(end: End, vm: str) -> list[str]:
    """What a guest printed, in order."""
    return [line.rstrip() for line in re.findall(rf"\[{re.escape(vm)}\] (.*)", end.text)]


def test_hello(machine: Machine, boot: Boot) -> None:
    """A guest boots, finds its start information, prints and powers off."""
    end = boot(machine, vms=[pv("a", "hello")]).wait_end()
    assert re.fullmatch(r"hello from vm \d+: 16 MiB, 1 vCPU, \d+ ns after its start", lines(end, "a")[0])


def test_reboots(machine: Machine, boot: Boot) -> None:
    """REBOOT starts a guest from its kernel again, in zeroed memory, as often as it may; nobody else notices."""
    end = boot(
        machine, vms=[{**pv("a", "reboot"), "reboots": 3}, pv("b", "idle", "ms=200 step=10"), {**pv("c", "reboot"), "memory": "64MiB"}]
    ).wait_end(expected=Status.GUEST_FAILED)
    assert lines(end, "a") == ["reboot: started with 0 words left of the life before"] * 4
    assert len(lines(end, "b")) == 1 and "result: vm 'b' ended with code 0" in end.text
    assert "vm 'a' ends by its call: of 3 reboots none is left" in end.text and "result: vm 'a' ended with code 2" in end.text
    assert len(re.findall(r"vm 'c' reboots by its call", end.text)) == 8 and "result: vm 'c' ended with code 2" in end.text


def test_idle_sleeps_on_the_timer(machine: Machine, boot: Boot) -> None:
    """BLOCK and the timer event: as many wake-ups as the steps asked for, while another guest spins."""
    end = boot(machine, vms=[pv("sleeper", "idle", "ms=100 step=10"), pv("busy", "spin", "ms=120")]).wait_end()
    woken = re.fullmatch(r"idle woke (\d+) times", lines(end, "sleeper")[0])
    assert woken is not None
    assert 2 <= int(woken[1]) <= 10


def test_guest_threads_are_preempted(machine: Machine, boot: Boot) -> None:
    """The timer event interrupts guest threads that never yield; each of them, and the one that sleeps, gets its turn."""
    end = boot(machine, vms=[pv("a", "preemption")]).wait_end()
    counted = re.fullmatch(r"preemption: counted (\d+), (\d+), (\d+)", lines(end, "a")[0])
    assert counted is not None
    assert all(int(count) > 1000 for count in counted.groups())


def test_cpu_shared_by_weight(machine: Machine, boot: Boot) -> None:
    """Two guests spin for the same time; one with three times the weight gets three times the CPU, within 15 %.

    QEMU counts instructions here: else time that other processes take from it is charged to the guest that happens to run.
    """
    end = boot(
        machine,
        vms=[pv("heavy", "spin", "at=100 ms=400", weight=300), pv("light", "spin", "at=100 ms=400", weight=100)],
        debug=False,
        icount=machine.emulator == "qemu" and machine.accel == "tcg",
    ).wait_end()
    heavy, light = (int(lines(end, vm)[0].removeprefix("iterations ")) for vm in ("heavy", "light"))
    assert 2.55 <= heavy / light <= 3.45


def test_registers_survive_switches(machine: Machine, boot: Boot) -> None:
    """Every register of the state table, in two guests with other patterns that take turns."""
    end = boot(machine, vms=[pv("a", "registers"), pv("b", "registers")]).wait_end()
    for vm in ("a", "b"):
        assert lines(end, vm) == ["registers ok 10000 switches"]


def test_memory_is_private(machine: Machine, boot: Boot) -> None:
    """Guests write other patterns at the same guest addresses; a third, started beside them, finds only zeros."""
    end = boot(
        machine,
        vms=[pv("a", "memory-write", "ms=200"), pv("b", "memory-write", "ms=200"), pv("c", "memory-peek")],
    ).wait_end()
    for vm in ("a", "b"):
        assert re.fullmatch(r"memory ok \d+ rounds of 1024 frames, 0 words wrong", lines(end, vm)[0])
    assert lines(end, "c") == ["peek ok 1024 frames, 0 words not zero"]


def test_frames_of_the_dead_are_zeroed(machine: Machine, boot: Boot) -> None:
    """What a guest left behind in memory that another gets later is not to be seen there. The other looks when the first has ended."""
    console = boot(
        machine,
        vms=[pv("first", "memory-write", "ms=1 mib=2"), pv("second", "memory-peek", "mib=8 key=1")],
    )
    console.expect_line("second", "peek waits for a key")
    state = "running"
    while state == "running":
        console.send_line("list")
        state = console.expect(r"first +pv +(\w+) ")[1]
    assert state == "ended"
    console.send_line("attach second")
    console.expect("attached to second")
    console.send("x")
    console.expect("peek ok 2048 frames, 0 words not zero")
    end = console.wait_end()
    assert re.fullmatch(r"memory ok \d+ rounds of 512 frames, 0 words wrong", lines(end, "first")[0])
