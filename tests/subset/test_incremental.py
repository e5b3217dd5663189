"""A change rebuilds what depends on it and nothing else."""
from __future__ import annotations

from pathlib import Path

import pytest

import toolchain
from compiler import Native, compile_program

ROOT = Path(__file__).resolve().parents[2]
FIRST = '''"""First."""
from hypervisor.lang import struct, u32


@struct
class Pair:
    left: u32
    right: u32


def sum_of(pair: Pair) -> u32:
    return pair.left + pair.right
'''
SECOND = '''"""Second."""
from hypervisor.first import Pair, sum_of
from hypervisor.lang import u32


def twice(pair: Pair) -> u32:
    return sum_of(pair) * 2
'''
THIRD = '''"""Third."""
from hypervisor.lang import u32


def same(value: u32) -> u32:
    return value
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three modules."""
    folder = tmp_path / "hypervisor"
    folder.mkdir()
    for name in ("__init__", "lang"):
        (folder / f"{name}.py").write_text((ROOT / "hypervisor" / f"{name}.py").read_text())
    for name, text in (("first", FIRST), ("second", SECOND), ("third", THIRD)):
        (folder / f"{name}.py").write_text(text)
    return tmp_path


def rebuilt(tree: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], set[str]]:
    """Build; the modules that Cython translated and the files that gcc compiled."""
    tools = toolchain.Toolchain(tree, tree / "out")
    translated: set[str] = set()
    compiled: set[str] = set()
    translate, run = toolchain.Toolchain._translate_all, toolchain.run

    def note_jobs(self: toolchain.Toolchain, jobs: list[tuple[str, str, str]]) -> None:
        translated.update(name for _, _, name in jobs)
        translate(self, jobs)

    def note_run(command: list[str], cwd: Path | None = None) -> str:
        compiled.add(Path(command[-3]).name)
        return run(command, cwd)

    with monkeypatch.context() as patch:
        patch.setattr(toolchain.Toolchain, "_translate_all", note_jobs)
        patch.setattr(toolchain, "run", note_run)
        units = compile_program(tree, ["hypervisor.second", "hypervisor.third"], {}, Native({}, [], ""))
        tools.objects(tools.translate(units), "gcc", toolchain.METAL)
    return translated, compiled


def test_only_what_changed_is_built_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translated, compiled = rebuilt(tree, monkeypatch)
    assert translated == {"hypervisor.first", "hypervisor.second", "hypervisor.third"}
    assert compiled == {"first.c", "second.c", "third.c"}
    assert rebuilt(tree, monkeypatch) == (set(), set())

    (tree / "hypervisor" / "third.py").write_text(THIRD.replace("return value", "return value + 1"))
    assert rebuilt(tree, monkeypatch) == ({"hypervisor.third"}, {"third.c"})

    (tree / "hypervisor" / "first.py").write_text(FIRST.replace("left: u32\n", "left: u32\n    middle: u32\n"))
    translated, compiled = rebuilt(tree, monkeypatch)
    assert "third.c" not in compiled and {"first.c", "second.c"} <= compiled
