"""Interrupts of local APICs and several vCPUs of a stock guest, on booted machines."""

import re
from dataclasses import replace

import pytest

from krait.machine import Machine
from qemu_tests import interrupt_storm
from qemu_tests.conftest import Boot
from qemu_tests.test_linux import BOOT_SECONDS, expect_user_space, linux, run

ROUNDS = 500


@pytest.mark.parametrize("machine", ["svm", "vtx"], indirect=True)
def test_no_interrupt_is_lost(machine: Machine) -> None:
    """IPIs and timer expiries beside a hostile guest, counted by the guest and by the hypervisor; `make long` has a million of each."""
    counted = replace(machine, icount=True, skip_idle=True) if machine.emulator == "qemu" else machine
    counts = interrupt_storm.run(counted, 2000, 300)
    assert counts.agree(2000, 300) and counts.hostile_exits > 2000, counts


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_four_vcpus_of_linux(machine: Machine, boot: Boot) -> None:
    """All online and computing; NMIs reach those that do not idle; one goes offline by HLT with interrupts off and comes back by
    INIT and start-up IPI; each has its own timer."""
    loop = f"i=0;while [ $i -lt {ROUNDS} ];do i=$((i+1));done;echo sum $(taskset -p $$|tail -c 2) $i"
    offline = "echo 0 >/sys/devices/system/cpu/cpu2/online;nproc;echo 1 >/sys/devices/system/cpu/cpu2/online;nproc"
    program = (f"nproc;for c in 1 2 4 8;do taskset $c sh -c '{loop}'& done;wait;echo l >/proc/sysrq-trigger;sleep 1;{offline};"
               "grep -E 'LOC|NMI' /proc/interrupts")  # fmt: skip
    console = boot(machine, vms=[{**linux(run(*program.split(" ")), "krait.end=poweroff", memory="192MiB"), "vcpus": 4}])
    expect_user_space(console)
    said = console.wait_end(BOOT_SECONDS).text
    assert set(re.findall(rf"\[tux\] sum (\d) {ROUNDS}\s", said)) == {"1", "2", "4", "8"}
    assert re.findall(r"\[tux\] ([34])\r?\n", said) == ["4", "3", "4"]
    nmi, loc = ([int(count) for count in found[1].split()] for found in (re.search(rf"\[tux\] {name}: +([\d ]+?) +[NL]", said) for name in ("NMI", "LOC"))
                if found is not None)  # fmt: skip
    assert len(loc) == 4 and min(loc) > 10 and sum(nmi) >= 2
