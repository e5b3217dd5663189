"""Faults of the hypervisor itself: each is named, explained in words, with registers and a back-trace, and ends the machine."""
import re

import pytest

from krait.machine import Machine
from krait.result import Status
from qemu_tests.conftest import Boot
from qemu_tests.harness import Console, End

IDLE = {"name": "ida", "kind": "pv", "memory": "8MiB", "workload": "idle", "cmdline": "ms=1000000000 step=100"}

CRASHES = {
    "pf": ("#PF page fault", r"supervisor read of 0000500000000000, which is not mapped"),
    "null": ("#PF page fault", r"supervisor write to 0000000000000010, through a null reference"),
    "text": ("#PF page fault", r"supervisor write to 0000000000100000, which its page's rights forbid"),
    "gp": ("#GP general protection", r"non-canonical address"),
    "ud": ("#UD invalid opcode", r"a check compiled into the code failed"),
    "df": ("#DF double fault", None),
    "nmi": ("NMI", r"a non-maskable interrupt"),
    "stack": ("#DF double fault", r"stack overflow, the push at [0-9a-f]{16} hit the guard page"),
}


def crash(console: Console, kind: str) -> End:
    """Provoke a fault at the prompt and wait for the end."""
    console.expect("krait> ")
    console.send_line(f"debug crash {kind}")
    return console.wait_end(expected=Status.PANIC)


@pytest.mark.parametrize("kind", CRASHES)
def test_a_fault_is_decoded(machine: Machine, boot: Boot, kind: str) -> None:
    name, cause = CRASHES[kind]
    text = crash(boot(machine, [IDLE], end_auto=False), kind).text
    dump = text[text.index("PANIC: "):]
    assert dump.startswith(f"PANIC: {name} (vector ")
    assert cause is None or re.search(f"cause: {cause}", dump)
    assert re.search(r"rip [0-9a-f]{16}  cs  0x8  ss  0x1?0 ", dump)
    trace = re.findall(r"^    [0-9a-f]{16} (\w+) \((\S+)\.(?:py|S):\d+\)\r$", dump, re.MULTILINE)
    assert trace[-2:] == [("main", "hypervisor/main"), ("long_mode", "hypervisor/arch_x86/boot")]
    assert ("run", "hypervisor/run_loop") in trace
    assert dump.count("PANIC") == 1


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_guests_memory_is_out_of_reach_but_in_a_window(machine: Machine, boot: Boot) -> None:
    """SMAP; Bochs' CPU has none."""
    text = crash(boot(machine, [IDLE], end_auto=False), "guest").text
    assert re.search(r"PANIC: #PF page fault .*\r\n  cause: supervisor read of [0-9a-f]{16}, which guests may have, outside a window", text)


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_an_nmi_from_outside_is_reported_while_the_machine_idles(machine: Machine, boot: Boot) -> None:
    console = boot(machine, [IDLE], end_auto=False)
    console.expect("krait> ")
    console.emulator.qmp("inject-nmi")
    end = console.wait_end(expected=Status.PANIC)
    assert "PANIC: NMI (vector 2" in end.text
