"""Rings of hostile drivers: nothing that is taken from one lies outside its VM's memory, interpreted and compiled alike."""
from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host_library import HostLibrary
from tests.memory.world import World
from tests.virtio import ring_fuzz
from tests.virtio.broken_rings import fuzz
from tests.virtio.world import COUNTS, FUZZ, compiled_run, interpreted_run

RINGS = 100_000


@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**64 - 1))
def test_interpreted_and_compiled_take_the_same(library: HostLibrary, seed: int) -> None:
    two, vm, run = compiled_run(library, seed)
    with closing(interpreted_run(seed)) as one:
        assert isinstance(one, World)
        assert ring_fuzz.rings(one.vms[0], 12) == two.call(f"{FUZZ}.rings", vm, 12) == 0
        assert [getattr(ring_fuzz.run, name) for name in COUNTS] == [getattr(run, name) for name in COUNTS]
        assert two.memory() == (bytes(one.ram), bytes(one.entries))
        ring_fuzz.end()
        two.call(f"{FUZZ}.end")
        one.check()


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is missing")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """On a library with address, undefined, overflow and conversion sanitizers, which end the process at what they find."""
    said = fuzz(tmp_path, RINGS, 1)
    assert f"{RINGS} broken rings" in said and " 0 should not have been taken" in said
