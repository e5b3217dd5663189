"""A VM entry that the hardware refuses stops that VM alone, with the reason in words."""

from krait.machine import Machine
from qemu_tests.conftest import Boot


def test_refused_entry_stops_its_vm_alone(machine: Machine, boot: Boot) -> None:
    console = boot(machine, vms=[
        {"name": "bad", "kind": "pv", "memory": "16MiB", "workload": "spin", "cmdline": "ms=1000000"},
        {"name": "good", "kind": "pv", "memory": "16MiB", "workload": "spin", "cmdline": "ms=2000"},
    ], end_auto=False)  # fmt: skip
    console.expect("2 started")
    console.send_line("debug entry bad")
    if machine.vendor == "intel":
        console.expect(r"vtx:   DR7 = 0x100000400: a bit above 31 is 1")
    console.expect(r"vm entry refused: \S")
    console.expect(r"vm 'bad' stopped: vm entry failed")
    console.expect_line("good", r"iterations \d+")
    console.send_line("list")
    console.expect(r"bad +pv +crashed")
    while console.expect(r"good +pv +(running|ended)")[1] == "running":  # it has printed, its power-off is on the way
        console.send_line("list")
    console.send_line("ledger")
    console.expect("ledger: ok")
    console.send_line("poweroff")
    console.wait_end()
