"""What KVM's leaves offer is used by Linux, and does what it says: four vCPUs that want one host CPU contend for locks and change mappings."""

import re
from pathlib import Path

import pytest

from krait.machine import Machine
from qemu_tests.conftest import Boot
from qemu_tests.harness import VmTable
from qemu_tests.test_linux import BOOT_SECONDS, linux, run, with_program

ROUNDS = 20
CPUS = 4
TRACING = "/sys/kernel/tracing"
CALLED = ("kvm_wait", "kvm_kick_cpu", "kvm_flush_tlb_multi", "kvm_send_ipi_mask", "kvm_smp_send_call_func_ipi")
"""Functions of the kernel (arch/x86/kernel/kvm.c) that are its use of a leaf: unhalt, both sides; TLB flush; IPIs by one call; and these with a
yield to a vCPU that does not run."""


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_linux_uses_what_it_is_offered(machine: Machine, boot: Boot, tmp_path: Path) -> None:
    """By its own tracer; no vCPU that was preempted keeps a translation, no lock hangs, time that others had is told, and interrupts
    end without a write to the EOI register."""
    count = ";".join(f"echo {name} $(grep -c \"{name} <-\" {TRACING}/trace)" for name in CALLED)
    program = (f"mount -t tracefs tracefs {TRACING};echo {' '.join(CALLED)} >{TRACING}/set_ftrace_filter;echo function >{TRACING}/current_tracer;"
               f"while /bin/contention {ROUNDS} && ! grep -q \"kvm_kick_cpu <-\" {TRACING}/trace;do :;done;echo 0 >{TRACING}/tracing_on;{count};head -n 1 /proc/stat;echo all told;sleep 1000")  # fmt: skip
    guest: VmTable = {**linux(run(*program.split(" ")), memory="160MiB"), "vcpus": CPUS, "initrd": str(with_program(tmp_path, "contention"))}
    console = boot(machine, vms=[guest], debug=False, end_auto=False)
    calls = {name: int(console.expect_line("tux", rf"{name} (\d+)", 2 * BOOT_SECONDS)[1]) for name in CALLED}
    assert all(calls.values()) and "contention STALE" not in console.text, calls
    assert int(console.expect_line("tux", r"cpu  (?:\d+ ){7}(\d+) ")[1]) > 0
    console.expect_line("tux", "all told")
    console.send_line("info tux")
    timers, others = (int(number) for number in console.expect(r"APICs +(\d+) interrupts of local timers, (\d+) of other vCPUs").groups())
    console.send_line("poweroff")
    writes = re.search(r"^ +wrmsr +(\d+)", console.wait_end().text, re.MULTILINE)
    # Each expiry is asked for by a WRMSR; without the bit each interrupt costs another one.
    assert writes is not None and int(writes[1]) < timers + (timers + others)
