"""Rings of hostile drivers: nothing that is taken from one lies outside its VM's memory, a console's driver hurts nobody but itself;
interpreted and compiled alike."""
from __future__ import annotations

import re
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host_library import HostLibrary
from tests.virtio.broken_rings import CONSOLE_SHARE, fuzz
from tests.virtio.world import DRIVERS, FUZZ, compiled_run, counts, interpreted_run

RINGS = 100_000
TURNS = {"ring_fuzz": 12, "console_fuzz": 40}


@pytest.mark.parametrize("driver", DRIVERS)
@settings(max_examples=10, suppress_health_check=list(HealthCheck), deadline=None)
@given(seed=st.integers(0, 2**64 - 1))
def test_interpreted_and_compiled_take_the_same(library: HostLibrary, driver: str, seed: int) -> None:
    two, vm, run = compiled_run(library, driver, seed)
    with closing(interpreted_run(driver, seed)) as one:
        module, turns = DRIVERS[driver], TURNS[driver]
        assert module.turns(one.vms[0], turns) == two.call(f"{FUZZ}.{driver}.turns", vm, turns) == 0
        assert counts(driver, module.run) == counts(driver, run)
        assert two.memory() == (bytes(one.ram), bytes(one.entries))
        assert list(one.vms[0].console.output) == list(vm.console.output)
        module.end(one.vms[0])
        two.call(f"{FUZZ}.{driver}.end", vm)
        one.check()


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is missing")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """On a library with address, undefined, overflow and conversion sanitizers, which end the process at what they find."""
    said = fuzz(tmp_path, RINGS, 1)
    assert f"{RINGS} broken rings" in said and " 0 should not have been taken" in said
    console = re.search(rf"{RINGS // CONSOLE_SHARE} turns of a console's driver: (\d+) bytes typed, (\d+) waits .* (\d+) times broken, .* 0 wrong", said)
    assert console is not None and all(int(number) > 100 for number in console.groups()), said
