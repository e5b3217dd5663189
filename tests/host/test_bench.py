"""Reading the benchmark's lines."""

import pytest

from krait import bench, bench_linux
from krait.outcome import KraitError

CONSOLE = "".join(f"[bench] bench: {name} {count}\r\n" for count, name in enumerate(bench.OPERATIONS, start=100))


def test_the_lines_are_read_in_order() -> None:
    assert list(bench.read(f"krait: up\r\n{CONSOLE}krait: exit 0x10\r\n").items()) == [
        ("hypercall", 100), ("cpuid", 101), ("out_emulated", 102), ("rdmsr", 103), ("lapic_mmio", 104), ("self_ipi", 105), ("fresh_page", 106)
    ]  # fmt: skip


def test_a_number_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KraitError, match="no number for: rdmsr;"):
        bench.read(CONSOLE.replace("rdmsr", "rdmsrs"))


LINUX = """krait> [tux] bench: tsc 000000005283c84f\r
krait> vm 'tux' switched itself off\r
krait> info tux\r
  tux: ended, 1 vCPU, weight 100, 1384 ms of CPU\r
    interrupt window           8\r
    cpuid                    409\r
    io                      2379\r
    nested fault             332\r
krait> ledger\r
"""


def test_each_cause_of_exits_is_read() -> None:
    """Also those next to each other and those of two words."""
    assert bench_linux.exits_of(LINUX) == {"io": 2379, "cpuid": 409, "nested fault": 332, "interrupt window": 8}
    assert bench_linux.tsc_of(LINUX) == 0x5283C84F
    with pytest.raises(KraitError, match="printed no number"):
        bench_linux.tsc_of("bench: tsc 12")


def test_the_reporter_stands_at_the_64_bit_entry() -> None:
    kernel = bytearray(b"\x90" * 4096)
    kernel[0x1F1] = 3
    patched = bench_linux.with_reporter(bytes(kernel))
    assert len(patched) == len(kernel)
    assert patched.index(bench_linux.REPORT_TSC) == 4 * 512 + 0x200
    assert patched.replace(bench_linux.REPORT_TSC, b"") == kernel[: -len(bench_linux.REPORT_TSC)]
