"""Interrupts of local APICs, on booted machines."""

from dataclasses import replace

import pytest

from krait.machine import Machine
from qemu_tests import interrupt_storm


@pytest.mark.parametrize("machine", ["svm", "vtx"], indirect=True)
def test_no_interrupt_is_lost(machine: Machine) -> None:
    """IPIs and timer expiries beside a hostile guest, counted by the guest and by the hypervisor; `make long` has a million of each."""
    counted = replace(machine, icount=True, skip_idle=True) if machine.emulator == "qemu" else machine
    counts = interrupt_storm.run(counted, 2000, 300, True)
    assert counts.agree(2000, 300, exact=machine.emulator == "bochs"), counts
