"""Random functions answer and store the same interpreted and compiled: widths, order of evaluation, loops, branches."""
from __future__ import annotations

import ctypes
import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import pytest

import hostlib
from host_library import HostLibrary
from hypervisor import lang
from tests.subset.random_module import module

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS, CALLS = 60, 12
EDGES = [0, 1, 7, 255, 256, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1]


def prepared(tmp_path: Path, seed: int) -> tuple[HostLibrary, Any]:
    """The module compiled and imported."""
    folder = tmp_path / "hypervisor"
    folder.mkdir()
    for name in ("__init__", "lang"):
        (folder / f"{name}.py").write_text((ROOT / "hypervisor" / f"{name}.py").read_text())
    (folder / "chance.py").write_text(module(seed, FUNCTIONS))
    hostlib.build(tmp_path, ["hypervisor.chance"], tmp_path / "out", sanitize=False)
    spec = importlib.util.spec_from_file_location("hypervisor.chance", folder / "chance.py")
    assert spec is not None and spec.loader is not None
    interpreted = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = interpreted
    spec.loader.exec_module(interpreted)
    return HostLibrary(tmp_path / "out"), interpreted


def filled(state: Any, chance: random.Random) -> None:
    """Random fields."""
    state.count, state.small, state.word = chance.choice(EDGES), chance.randrange(256), chance.choice(EDGES) % 2**32
    for index in range(8):
        state.cells[index] = chance.choice([*EDGES, chance.getrandbits(64)])


def content(state: Any) -> bytes:
    """The bytes of an interpreted struct."""
    region, offset = lang.region_of(lang.address(state), lang.sizeof(type(state)))
    return bytes(region.data[offset:offset + lang.sizeof(type(state))])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_functions(tmp_path: Path, seed: int) -> None:
    library, interpreted = prepared(tmp_path, seed)
    kind = library.struct("hypervisor.chance.State")
    chance = random.Random(seed)
    for number in range(FUNCTIONS):
        compiled = library.function(f"hypervisor.chance.f{number}")
        for _ in range(CALLS):
            states = [interpreted.State(), interpreted.State()]
            for state in states:
                filled(state, chance)
            twins = [kind.from_buffer_copy(content(state)) for state in states]
            a, b = (chance.choice([*EDGES, chance.getrandbits(64)]) for _ in range(2))
            values = a, b, chance.choice(EDGES) % 2**32, chance.randrange(256), chance.random() < 0.5
            expected = getattr(interpreted, f"f{number}")(*states, *values)
            assert compiled(*twins, *values) == expected, (seed, number, values)
            assert [content(state) for state in states] == [ctypes.string_at(ctypes.addressof(twin), ctypes.sizeof(twin))
                                                            for twin in twins], (seed, number, values)
