"""A guest that does what no guest should is stopped, alone, with a dump; its neighbour does not notice."""

import pytest

from krait.machine import Machine
from krait.result import Status
from qemu_tests.conftest import Boot
from qemu_tests.test_pv_guests import lines, pv


@pytest.mark.parametrize(
    ("workload", "said", "dump"),
    [
        ("beyond", "touching 0x1005000, beyond my memory", "0x1005000"),
        ("triple-fault", "loading no IDT, then an exception", "triple fault"),
        ("exception", "guest trap: #UD invalid opcode, error 0x0, cr2 0x0", "guest trap: #UD invalid opcode at 0x"),
    ],
)
def test_stopped_alone(machine: Machine, boot: Boot, workload: str, said: str, dump: str) -> None:
    """The dump names the cause and shows the registers; the neighbour's work comes out right."""
    end = boot(machine, vms=[pv("bad", workload), pv("good", "memory-write", "ms=200")]).wait_end(
        expected=Status.GUEST_FAILED
    )
    assert lines(end, "bad")[0] == said
    assert "still here" not in end.text
    assert dump in end.text
    assert "rip" in end.text
    assert lines(end, "good")[0].startswith("memory ok")
