"""The operator changes policy and weights while guests run."""

import re
from dataclasses import replace

import pytest

from hypervisor.sched import policy
from krait.machine import Machine
from qemu_tests.conftest import Boot
from qemu_tests.harness import Console

SPIN = {"kind": "pv", "memory": "16MiB", "workload": "spin", "cmdline": "ms=600000"}
POLICIES: list[str] = list(policy.POLICY_NAMES)


def cpu_ms(console: Console) -> list[int]:
    """Milliseconds of CPU that `list` shows for both guests."""
    console.send_line("list")
    found = console.expect(r"0 ada .* (\d+) ms\r\n +1 bob .* (\d+) ms")
    return [int(time) for time in found.groups()]


@pytest.mark.parametrize("machine", ["svm", "vtx"], indirect=True)
def test_the_operator_changes_policy_and_weight(machine: Machine, boot: Boot) -> None:
    console = boot(machine, [{**SPIN, "name": "ada"}, {**SPIN, "name": "bob"}], end_auto=False)
    assert console.expect(r"started, policy (\S+)\r\n")[1] == "eevdf"
    console.expect("krait> ")
    console.send_line("policy")
    assert re.findall(r"[\w-]+", console.expect(r"  \* eevdf\r\n((?:    \S+\r\n)+)krait> ")[1]) == POLICIES[1:]
    console.send_line("policy fifo")
    console.expect("no such policy: fifo")
    console.send_line("weight ada 0")
    console.expect("a weight is 1 to 1048576")
    for name in [*POLICIES[1:], "eevdf"]:
        before = cpu_ms(console)
        console.send_line(f"policy {name}")
        console.expect(rf"policy {name}\r\n")
        after = before
        while min(now - then for now, then in zip(after, before)) < 20:  # credit's turn takes 10 ms
            after = cpu_ms(console)
    console.send_line("policy")
    console.expect(r"  \* eevdf\r\n")
    console.send_line("weight ada 700")
    console.expect("ada: weight 700")
    before = after = cpu_ms(console)
    while sum(after) - sum(before) < 400:
        after = cpu_ms(console)
    ada, bob = (now - then for now, then in zip(after, before))
    assert 4 <= ada / bob <= 10, "a seventh"
    console.send_line("weight ada 100")
    console.send_line("reserve bob 95")
    console.expect("bob: the CPUs cannot keep that reservation")
    console.send_line("pin ada 7")
    console.expect("ada: there is no such CPU")
    console.send_line("pin ada 0,x")
    console.expect(r"pin NAME CPUS \[VCPU\]: numbers and ranges")
    console.send_line("cap ada 20 40")
    console.expect("ada: weight 100, cap 20 %, reserved 0 %, CPUs 0x1")
    before = after = cpu_ms(console)
    while sum(after) - sum(before) < 800:
        after = cpu_ms(console)
    ada, bob = (now - then for now, then in zip(after, before))
    assert ada / (ada + bob) == pytest.approx(0.2, abs=0.02 if machine.emulator == "bochs" else 0.1), "QEMU runs freely: its host takes time too"
    console.send_line("stats")
    idle, overhead = map(int, console.expect(r"cpu 0: idle (\d+) ms, overhead (\d+) ms").groups())
    assert overhead > 0, "the operator's commands at least"
    console.send_line("poweroff")
    console.wait_end()


def cpus_used(console: Console) -> float:
    """By all guests together, over the next 300 ms or more of the machine's time."""
    console.send_line("shares reset")
    console.expect("counted from now on")
    elapsed = used = 0
    while elapsed < 300_000:
        console.send_line("shares")
        elapsed, used = map(int, console.expect(r"(\d+) us of 2 CPU, used by guests: (\d+) us\r\n").groups())
    return used / elapsed


@pytest.mark.parametrize("machine", ["svm2", "vtx2"], indirect=True)
def test_pinned_vcpus_run_where_they_are_pinned(machine: Machine, boot: Boot) -> None:
    """Two vCPUs of one VM pinned to one CPU have no more than that, and all of it; to one each they have both, as without pins."""
    twins: dict[str, str | int] = {"name": "ada", "kind": "pv", "memory": "16MiB", "workload": "spin-all", "cmdline": "ms=600000", "vcpus": 2}
    counted = machine.emulator == "qemu"  # else what its host does beside it shows
    console = boot(replace(machine, icount_shift=4), [{**twins, "pins": [1, 1]}], end_auto=False, icount=counted)
    console.expect("krait> ")
    assert cpus_used(console) == pytest.approx(1, abs=0.1)
    console.send_line("pin ada 0 0")
    console.expect("ada: vCPU 0, CPUs 0x1")
    assert cpus_used(console) == pytest.approx(2, abs=0.3)
    for line, why in (("pin ada 0,1 1", "pinned to one CPU"), ("pin ada 0 2", "no such vCPU"), ("pin ada 0 x", "no such vCPU"), ("reserve ada 10", "has pinned vCPUs")):
        console.send_line(line)
        console.expect(f"ada: [^\r\n]*{why}")
    console.send_line("pin ada 1 0")
    console.expect("ada: vCPU 0, CPUs 0x2")
    console.send_line("reboot ada")
    for _ in range(10):  # it starts
        used = cpus_used(console)
        if used >= 0.9:
            break
    assert used == pytest.approx(1, abs=0.1), "a reboot keeps pins"
    console.send_line("pin ada all")
    console.expect("CPUs 0x3")
    assert cpus_used(console) == pytest.approx(2, abs=0.3)
    console.send_line("poweroff")
    console.wait_end()
