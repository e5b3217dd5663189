"""Guests that do what no guest should, beside guests with exact work: all contained, the others do not notice, no frame is lost.

`tests/hostile/` is the hostile kernel; it runs as a PV guest and as a Multiboot guest.
"""

import re
from pathlib import Path

import pytest

from krait.machine import Machine
from krait.result import Status
from qemu_tests.conftest import Boot
from qemu_tests.harness import End, VmTable
from qemu_tests.test_linux import linux, run
from qemu_tests.test_multiboot import MODES, multiboot
from qemu_tests.test_pv_guests import lines, pv
from tests import cpu_policy
from tests.hostile import build
from tests.multiboot import guests

# What each instruction does at CPL 0 and 3 ("done": nothing but its work), where both vendors agree.
OUTCOMES = {
    "done done": "cpuid sgdt sidt smsw rdtsc rdtscp rdrand",
    "done #GP": "clts invd wbinvd invlpg lgdt lidt lmsw swapgs cr8-read cr8-write dr4-read",
    "#GP #GP": "lldt ltr rdpmc dr7-high cr4-high iret-bad far-jump too-long",
    "- #GP": "hlt-user",
    "#UD #UD": "xgetbv rsm getsec vmlaunch vmresume vmxoff vmxon vmptrld vmptrst vmclear vmread vmwrite vmfunc invept invvpid skinit rdpru "
    "encls pconfig xsaves xrstors wrpkru ud2 ud1 sysret lock-nop",
}  # fmt: skip
# Where they do not: a hypercall is the vendor's own instruction; SVM's instructions are #GP at CPL 3 before they are intercepted;
# QEMU looks at ECX of MONITOR and XSETBV first, and has no INT1.
AMD = {
    "done done": "vmmcall",
    "done #UD": "clac",
    "#UD #GP": "vmrun vmload vmsave stgi clgi invlpga cr1-read cr5-write xsetbv",
    "#GP #UD": "monitor mwait",
    "#UD #UD": "vmcall invpcid int1 sysexit",
}
INTEL = {
    "done done": "vmcall",
    "#UD #UD": "vmmcall clac vmrun vmload vmsave stgi clgi invlpga cr1-read cr5-write xsetbv monitor mwait",
    "#GP #GP": "invpcid sysexit",
    "#DB #DB": "int1",
}


def outcomes(vendor: dict[str, str]) -> dict[str, str]:
    """Outcome by instruction."""
    return {name: what for table in (OUTCOMES, vendor) for what, names in table.items() for name in names.split()}


def hostile(name: str, do: str, cmdline: str = "", small: bool = False) -> VmTable:
    """One VM of the hostile kernel: a PV guest, or (small) a Multiboot guest."""
    kernel: Path = build.kernels()[1 if small else 0]
    return {"name": name, "kind": "multiboot" if small else "pv", "memory": "8MiB", "kernel": str(kernel), "cmdline": f"do={do} {cmdline}"}


def both(name: str, do: str, cmdline: str = "") -> list[VmTable]:
    """The same as both kinds: `p-NAME` and `m-NAME`."""
    return [hostile(f"p-{name}", do, cmdline), hostile(f"m-{name}", do, cmdline, True)]


HARMLESS = ("privileged", "registers", "cpuid", "storm", "spin", "events")


def hostile_guests() -> list[VmTable]:
    """All of them but the MSRs."""
    return [
        *both("privileged", "privileged"),
        *both("registers", "control-registers"),
        *both("cpuid", "cpuid"),
        *both("memory", "memory"),
        *both("events", "events"),
        *both("storm", "storm", "rounds=200"),
        *both("spin", "spin", "ms=100"),
        hostile("p-calls", "hypercalls", "count=5000 seed=3"),
        hostile("m-code", "strange-code", "count=4000 seed=4", True),
        *(hostile(f"m-any{seed}", "strange-code", f"count=4000 any=1 seed={seed}", True) for seed in (10, 11, 12)),
    ]


def check_hostile(end: End, amd: bool) -> None:
    """Each did all it wanted, or was stopped with a dump that says what and where."""
    for kind in "pm":
        found = dict(line.split(": ") for line in lines(end, f"{kind}-privileged") if ": " in line)
        assert found == outcomes(AMD if amd else INTEL)
        assert "xcr0 0x8a" in lines(end, f"{kind}-registers")
        assert lines(end, f"{kind}-cpuid")[-1].startswith("4288 leaves asked")
        assert lines(end, f"{kind}-storm") == ["storm of 200 rounds over, interrupted"]
        assert lines(end, f"{kind}-spin") == ["spun with interrupts off"]
        assert lines(end, f"{kind}-events") == [f"events: {15 if kind == 'p' else 14} tried, 0 wrong"]
        assert lines(end, f"{kind}-memory")[0] == "own memory: 0 pages wrong"
        for name in HARMLESS:
            assert f"result: vm '{kind}-{name}' ended with code 0" in end.text
    assert "vm 'p-memory' stopped: touched 0x800000, beyond its 8 MiB" in end.text
    assert re.fullmatch(r"beyond: \d+ places, 0 wrong", lines(end, "m-memory")[1])
    assert "5000 hypercalls, seed 3, 0 wrong" in end.text
    assert lines(end, "m-code")[-1] == "4000 instructions at holes, seed 4"
    for seed in (10, 11, 12):
        how = r"(where nothing is, with an instruction not decoded|beyond its 8 MiB,) at rip 0x\w+"  # the latter: it jumped there
        stopped = re.search(rf"vm 'm-any{seed}' stopped: touched 0x\w+, {how}", end.text)
        assert stopped is not None or f"4000 instructions at holes, seed {seed}" in end.text
    assert len(re.findall(r"^  code [0-9a-f]{2} ", end.text, re.MULTILINE)) >= end.text.count("with an instruction not decoded")


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_a_host_interrupt_behind_sti_lets_none_of_the_guests_in(machine: Machine, boot: Boot) -> None:
    """QEMU 7.2 forgets the shadow of STI when the guest goes on; of so many times about six are hit."""
    end = boot(machine, vms=both("events", "events", "shadows=1000")).wait_end()
    assert lines(end, "p-events") == ["events: 1014 tried, 0 wrong"]
    assert lines(end, "m-events") == ["events: 1013 tried, 0 wrong"]


ALL = pytest.mark.parametrize("machine", ["svm", "vtx", "kvm", "svm2", "vtx2"], indirect=True)


@ALL
def test_sixteen_guests_of_three_kinds_and_hostile_ones(machine: Machine, boot: Boot) -> None:
    """PV, Multiboot and Linux guests print exactly what they should while others try everything."""
    names = [f"pv{number}" for number in range(9)]
    end = boot(
        machine,
        vms=[
            linux(run("echo", "exact"), "krait.end=poweroff", memory="96MiB"),
            *({**pv(name, "registers", "switches=400"), "memory": "2MiB"} for name in names),
            *(multiboot(f"modes{number}", guests.elf("modes"), "halt") for number in range(6)),
            *hostile_guests(),
        ],
    ).wait_end(timeout=400, expected=Status.GUEST_FAILED)
    for name in names:
        assert lines(end, name) == ["registers ok 400 switches"]
    for number in range(6):
        assert lines(end, f"modes{number}")[1:] == [*MODES, "halting"]
    assert "[tux] exact" in end.text and "result: vm 'tux' ended with code 0" in end.text
    check_hostile(end, machine.emulator == "qemu")


@ALL
def test_every_msr(machine: Machine, boot: Boot) -> None:
    """A guest reads and writes all 25,088 numbers of the architectural ranges: what answers is what docs/cpu-policy.md lists."""
    end = boot(machine, vms=[hostile("m-msrs", "msrs", small=True), pv("good", "memory-write", "ms=200")], debug=False).wait_end()
    said = [re.fullmatch(r"msr 0x(\w+) ([01])([01])", line) for line in lines(end, "m-msrs")[:-1]]
    found = {int(line[1], 16): ("r" if line[2] == "1" else "") + ("w" if line[3] == "1" else "") for line in said if line is not None}
    vendor = "AMD" if machine.emulator == "qemu" else "Intel"
    assert found == {msr: row.can for msr, row in cpu_policy.msrs().items() if row.vendor in ("both", vendor)}
    assert lines(end, "m-msrs")[-1] == "25088 MSRs tried"
    assert lines(end, "good")[0].startswith("memory ok")
