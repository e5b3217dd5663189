"""Many guests on one CPU: more than the hardware has address-space tags (QEMU's SVM: 15 for guests)."""

from krait.machine import Machine
from qemu_tests.conftest import Boot

GUESTS = 20


def test_more_guests_than_asids(machine: Machine, boot: Boot) -> None:
    """Tags are used again and again, and every guest keeps its registers over its switches."""
    names = [f"guest{number}" for number in range(GUESTS)]
    end = boot(
        machine,
        vms=[
            {"name": name, "kind": "pv", "memory": "2MiB", "workload": "registers", "cmdline": "switches=500"} for name in names
        ],
        debug=False,
    ).wait_end()
    for name in names:
        assert f"[{name}] registers ok 500 switches" in end.text
