"""Reading the benchmark's lines."""

import pytest

from krait import bench
from krait.outcome import KraitError

CONSOLE = "".join(f"[bench] bench: {name} {count}\r\n" for count, name in enumerate(bench.OPERATIONS, start=100))


def test_the_lines_are_read_in_order() -> None:
    assert list(bench.read(f"krait: up\r\n{CONSOLE}krait: exit 0x10\r\n").items()) == [
        ("hypercall", 100), ("cpuid", 101), ("out_emulated", 102), ("rdmsr", 103), ("fresh_page", 104)
    ]  # fmt: skip


def test_a_number_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KraitError, match="no number for: rdmsr;"):
        bench.read(CONSOLE.replace("rdmsr", "rdmsrs"))
