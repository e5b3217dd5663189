"""Every example of docs/subset.md compiles, or is refused with the words that stand beside it."""
from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import hostlib
from compiler import Native, Refused, compile_program

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "subset.md").read_text()
SIGNATURE = ("def example(t: Thing, a: u64, b: u64, s: i64, n: u32, byte: u8, flag: bool, text: str, gpa: Gpa, "
             "p: Thing | None) -> None:\n")
FENCE = re.compile(r"^```python ([^\n]+)\n(.*?)^```$", re.M | re.S)
PREAMBLE = next(code for kind, code in FENCE.findall(DOCUMENT) if kind == "preamble")


@dataclass
class Row:
    """One line of a table."""

    rule: str
    accepted: str
    refused: str
    words: list[str]


def rows() -> list[Row]:
    """The rows of all tables."""
    found = []
    for line in DOCUMENT.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[1].startswith("`"):
            accepted, refused, words = (cell.strip("`").replace("\\|", "|") for cell in cells[1:])
            found.append(Row(cells[0], accepted, refused, words.split("|")))
    return found


def body(code: str) -> str:
    """The example as a function; compound statements on one line stay so."""
    return SIGNATURE + f"    {code}\n"


def front_end(tmp_path: Path, code: str) -> None:
    """Run the front end over the preamble and an example."""
    write_tree(tmp_path, code)
    compile_program(tmp_path, ["hypervisor.example"], {}, Native({}, [], ""))


def write_tree(tmp_path: Path, code: str) -> None:
    """A tree with the vocabulary and the module `hypervisor.example`."""
    folder = tmp_path / "hypervisor"
    folder.mkdir(exist_ok=True)
    for name in ("__init__", "lang", "format", "build_options"):
        (folder / f"{name}.py").write_text((ROOT / "hypervisor" / f"{name}.py").read_text())
    (folder / "example.py").write_text(PREAMBLE + "\n\n" + code)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.rule)
def test_refused_in_a_function(tmp_path: Path, row: Row) -> None:
    with pytest.raises(Refused) as refusal:
        front_end(tmp_path, body(row.refused))
    assert any(words in str(refusal.value) for words in row.words), str(refusal.value)
    assert f"hypervisor/example.py:{len(PREAMBLE.splitlines()) + 4}: " in str(refusal.value)


@pytest.mark.parametrize(("kind", "code"), [found for found in FENCE.findall(DOCUMENT) if found[0].startswith("refused")],
                         ids=lambda text: text.split(": ", 1)[-1][:40] if text.startswith("refused") else "")
def test_refused_in_a_module(tmp_path: Path, kind: str, code: str) -> None:
    with pytest.raises(Refused) as refusal:
        front_end(tmp_path, code)
    assert kind.split(": ", 1)[1] in str(refusal.value)
    assert re.match(r"hypervisor/example\.py:\d+: ", str(refusal.value))


def test_accepted_examples_become_machine_code(tmp_path: Path) -> None:
    """All of them in one module, through Cython and gcc, warnings that are errors included; CPython and mypy take them too."""
    functions = [body(row.accepted).replace("example", f"example_{number}") for number, row in enumerate(rows())]
    blocks = [code for kind, code in FENCE.findall(DOCUMENT) if kind == "accepted"]
    write_tree(tmp_path, "\n\n".join([*blocks, *functions]))
    assert hostlib.build(tmp_path, ["hypervisor.example"], tmp_path / "out", sanitize=False).exists()
    subprocess.run([sys.executable, "-c", "import hypervisor.example"], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "mypy", "--strict", "--explicit-package-bases", "--cache-dir", str(tmp_path / "mypy"),
                    "hypervisor/example.py"], cwd=tmp_path, check=True)


def test_there_are_examples() -> None:
    assert len(rows()) > 50
