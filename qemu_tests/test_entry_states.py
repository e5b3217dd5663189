"""Random guest states at a VM entry: each VM runs on, faults by itself, or is stopped alone with the broken rule named."""

import re

from krait.machine import Machine
from qemu_tests.conftest import Boot

VMS = 40


def test_random_states(machine: Machine, boot: Boot) -> None:
    """One seed a VM, while another does its work; every refused entry is explained, and no frame is lost."""
    console = boot(machine, vms=[
        *({"name": f"v{seed}", "kind": "pv", "memory": "2MiB", "workload": "idle", "cmdline": "ms=1000000 step=5"} for seed in range(VMS)),
        {"name": "good", "kind": "pv", "memory": "2MiB", "workload": "spin", "cmdline": "ms=1000"},
    ], end_auto=False)  # fmt: skip
    console.expect(f"{VMS + 1} started")
    for seed in range(VMS):
        console.send_line(f"debug entry v{seed} {seed}")
        console.expect(rf"vm 'v{seed}' seed {seed}: \w")
    console.send_line("ledger")
    console.expect("ledger: ok")
    if "[good] iterations" not in console.text:
        console.expect(r"\[good\] iterations")
    console.send_line("poweroff")
    text = console.wait_end().text
    refused = set(re.findall(r"vm '(v\d+)' stopped: vm entry failed", text))
    assert re.search(r"\[good\] iterations \d+", text)
    assert len(refused) >= VMS // 8
    for vm in refused:
        assert re.search(rf"vm '{vm}' stopped: vm entry failed at rip 0x\w+", text)
    assert len(re.findall(r"vm entry refused: \w", text)) == len(refused)
    assert "none of the rules that Krait knows is broken" not in text
