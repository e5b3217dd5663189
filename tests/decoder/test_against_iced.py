"""The decoder against iced-x86, and interpreted against compiled. More of the same: make long."""
from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies

import hostlib
from host_library import HostLibrary
from hypervisor.addresses import Hva
from hypervisor.arch_x86.decoder.alu import Values
from hypervisor.arch_x86.decoder.mmio import Operation
from hypervisor.lang import map_memory, unmap_memory
from tests.decoder import batch
from tests.decoder.batch import SLOT
from tests.decoder.compare import ROW, compare, compiled_run, generate
from tests.three_lives.builds import ROOT
from tests.three_lives.mirror import same, twin
from tests.three_lives.test_scenario import run_sanitized

CODE, ROWS = 0x5000_0000, 0x5100_0000


def interpreted_run(slots: bytearray, bits: int) -> bytes:
    """batch.run under CPython."""
    count = len(slots) // SLOT
    rows = bytearray(count * ROW.size)
    map_memory(CODE, slots)
    map_memory(ROWS, rows)
    batch.run(Hva(CODE), count, bits, Hva(ROWS))
    unmap_memory(CODE)
    unmap_memory(ROWS)
    return bytes(rows)


def test_compiled(compiled_decoder: Path) -> None:
    counts, wrong = compare(compiled_run(compiled_decoder), 2, 300_000)
    assert wrong == []
    assert counts["valid"] > 150_000 and counts["mmio"] > 60_000


def test_a_difference_is_seen(compiled_decoder: Path) -> None:
    """The comparison itself: one bit changed in one row."""
    right = compiled_run(compiled_decoder)

    def damaged(slots: bytearray, bits: int) -> bytes:
        rows = bytearray(right(slots, bits))
        known = next(at for at in range(0, len(rows), ROW.size) if rows[at + 17])
        rows[known + 19] ^= 16  # width
        return bytes(rows)

    assert len(compare(damaged, 3, 300)[1]) == 1


@given(strategies.integers(0, 1 << 32), strategies.sampled_from([16, 32, 64]))
@settings(max_examples=40, deadline=None)
def test_compiled_is_interpreted(compiled_decoder: Path, seed: int, bits: int) -> None:
    slots = generate(random.Random(seed), 50)
    assert interpreted_run(slots, bits) == compiled_run(compiled_decoder)(slots, bits)


WORD = strategies.integers(0, (1 << 64) - 1)
COMPUTED = [o for o in Operation if o < Operation.PUSH]


@given(WORD, WORD, WORD, WORD, strategies.sampled_from(COMPUTED), strategies.sampled_from([1, 2, 4, 8]), strategies.booleans())
@settings(max_examples=400, deadline=None)
def test_compiled_arithmetic_is_interpreted(compiled_decoder: Path, memory: int, operand: int, accumulator: int, flags: int,
                                            operation: Operation, width: int, to_register: bool) -> None:
    library = HostLibrary(compiled_decoder)
    values = Values()
    values.memory, values.operand, values.accumulator, values.flags = memory, operand, accumulator, flags
    compiled = twin(library, values)
    batch.compute(operation, width, to_register, values)
    library.function("tests.decoder.batch.compute")(int(operation), width, to_register, compiled)
    assert same(values, compiled)


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is missing")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """Address, undefined, overflow and implicit-conversion sanitizers over the same."""
    hostlib.build(ROOT, ["tests.decoder.batch"], tmp_path, sanitize=True)
    done = run_sanitized(tmp_path, ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/decoder/test_against_iced.py",
                                    "-k", "test_compiled"])
    assert done.returncode == 0, done.stdout + done.stderr
