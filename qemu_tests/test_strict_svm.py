"""SVM on Bochs, which refuses VMCBs that QEMU takes, and has the next RIPs and decode assists that QEMU has not.

Its VMRUN leaves CR2 alone (Bochs 2.7), so what the guests' registers hold over switches is tested on QEMU only.
"""

import pytest

from krait.machine import Machine
from qemu_tests.conftest import Boot

pytestmark = pytest.mark.parametrize("machine", ["strict"], indirect=True)


def test_guests_run(machine: Machine, boot: Boot) -> None:
    end = boot(machine, vms=[
        {"name": "a", "kind": "pv", "memory": "16MiB", "workload": "memory-write"},
        {"name": "b", "kind": "pv", "memory": "16MiB", "workload": "idle"},
    ]).wait_end()  # fmt: skip
    assert "virtual     SVM" in end.text
    assert "[a] memory ok" in end.text and "[b] idle woke" in end.text


def test_refused_entry_stops_its_vm(machine: Machine, boot: Boot) -> None:
    console = boot(machine, vms=[
        {"name": "bad", "kind": "pv", "memory": "16MiB", "workload": "spin", "cmdline": "ms=1000000"},
    ], end_auto=False)  # fmt: skip
    console.expect("1 started")
    console.send_line("debug entry bad")
    console.expect(r"vm 'bad' stopped: vm entry failed")
    console.send_line("poweroff")
    console.wait_end()
