"""What a finished image offers: gdb's view, names of addresses, traps with a line, bounded stacks, no runtime."""
from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import cython_backend
import symbol_table
from hypervisor import lang, symbols
from stack_depth import CallGraph, StackError

RING = "tests/three_lives/sample/ring.py"
ROOT = Path(__file__).resolve().parents[2]


def line_of(text: str, path: str = RING) -> int:
    """The number of the first line of a source file that holds a text."""
    return next(number for number, line in enumerate((ROOT / path).read_text().splitlines(), 1) if text in line)


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is missing")
def test_gdb_knows_python_files_and_lines(elf: Path) -> None:
    said = subprocess.run(["gdb", "-batch", "-ex", f"info line {RING}:{line_of('state: u32 = 0x1234_5678')}", "-ex",
                           f"list {RING}:{line_of('def checksum')},+1", "-ex", f"break {RING}:{line_of('ring.lost = ')}", str(elf)],
                          capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert f'"{RING}"' in said
    assert '"""Checksum of what is in the ring, not taking it."""' in said  # the source itself, not what the compiler made of it
    assert "Breakpoint 1 at" in said


def disassembly(elf: Path) -> dict[str, list[tuple[int, str]]]:
    """Instructions by function."""
    found: dict[str, list[tuple[int, str]]] = {}
    name = ""
    for line in subprocess.run(["objdump", "-d", "--no-show-raw-insn", str(elf)], capture_output=True, text=True,
                               check=True).stdout.splitlines():
        if label := re.match(r"[0-9a-f]+ <(.*)>:", line):
            name = label[1]
        elif instruction := re.match(r"\s*([0-9a-f]+):\s+(.*)", line):
            found.setdefault(name, []).append((int(instruction[1], 16), instruction[2]))
    return found


@pytest.fixture(scope="module")
def table(elf: Path) -> tuple[symbols.Table, int]:
    """The image's own table in fake memory, read by the interpreted module."""
    start = 0x200_0000
    content = elf.with_suffix(".table")
    subprocess.run(["objcopy", "--dump-section", f".symbols={content}", str(elf), str(elf.with_suffix(".copy"))], check=True)
    lang.map_memory(start, bytearray(content.read_bytes()))
    return lang.at(symbols.Table, start), start


def test_every_line_of_the_image_is_found(elf: Path, table: tuple[symbols.Table, int]) -> None:
    place = symbols.Place()
    names = dict(symbol_table.functions_of(elf, symbol_table.text_range(elf)))
    rows = symbol_table.rows_of(elf)
    inside = [row for row in rows if row[1] and min(names) <= row[0]]
    assert len(inside) > 500
    for address, file, line in inside:
        assert symbols.lookup_in(table[0], table[1], address, place)
        assert (place.home + place.file, place.line) == (file, line)
    for address, name in names.items():
        assert symbols.lookup_in(table[0], table[1], address, place)
        assert (place.function, place.offset) == (name, 0)


def test_addresses_outside_are_unknown(elf: Path, table: tuple[symbols.Table, int]) -> None:
    start, end = symbol_table.text_range(elf)
    place = symbols.Place()
    assert not symbols.lookup_in(table[0], table[1], start - 1, place)
    assert not symbols.lookup_in(table[0], table[1], end, place)


def test_functions_are_the_code_that_starts_there(elf: Path) -> None:
    """Each name that `nm` puts between start and end of text, and none of the marks that gcc leaves for debuggers."""
    names = subprocess.run(["nm", str(elf)], capture_output=True, text=True, check=True).stdout
    marks = {(int(place, 16), unit) for place, unit in re.findall(r"^([0-9a-f]+) W (\w+)\.c\.[0-9a-f]+$", names, re.MULTILINE)}
    assert marks, "gcc leaves them"
    assert not marks & set(symbol_table.functions_of(elf, (0, 1 << 64)))


def test_traps_name_the_line_of_the_index(elf: Path, table: tuple[symbols.Table, int]) -> None:
    """Each `ud2` lies at a line that indexes, divides, asserts or dispatches."""
    place = symbols.Place()
    lines = set()
    for instructions in disassembly(elf).values():
        for address, text in instructions:
            if text.startswith("ud2"):
                assert symbols.lookup_in(table[0], table[1], address, place)
                lines.add((place.home + place.file, place.line))
    sources = {(file, line): (ROOT / file).read_text().splitlines()[line - 1] for file, line in lines}
    assert sources
    for where, source in sources.items():
        assert re.search(r"\[|assert|%|//|for .* in ", source), (where, source)
    assert any("queue.tasks[number % run_queue.TASKS]" not in source and "tasks[" in source for source in sources.values())


def test_release_tables_keep_calls_and_traps(elf: Path) -> None:
    all_rows = symbol_table.rows_of(elf)
    sites = symbol_table.sites_only(elf, all_rows)
    text = symbol_table.text_range(elf)
    functions = symbol_table.functions_of(elf, text)
    assert len(symbol_table.encode(text, functions, sites)) < len(symbol_table.encode(text, functions, all_rows))
    assert len(sites) > 20


def test_stacks_are_counted(elf: Path) -> None:
    report = (elf.parent / "image" / "stacks.txt").read_text()
    assert report.startswith("tests_three_lives_metal_main__main: ")
    assert 0 < int(report.split()[1]) < 8192


def test_recursion_in_the_call_graph_is_refused() -> None:
    node = 'node: {{ title: "{0}" label: "{0}\\nx.py:1:1\\n16 bytes (static)\\n0 dynamic objects" }}\n'
    graph = CallGraph([node.format("a") + node.format("b") + 'edge: { sourcename: "a" targetname: "b" label: "x" }\n'])
    assert graph.depth("a").bytes == 48
    graph.calls["b"] = ["a"]
    graph._deepest.clear()
    with pytest.raises(StackError, match="recursion: a -> b -> a"):
        graph.depth("a")


def test_the_back_end_finds_pythons_runtime(tmp_path: Path) -> None:
    """Cython accepts an assertion, but would call Python for it: the gate names the line."""
    (tmp_path / "leak.pxd").write_text("cdef int half(int value) noexcept\n")
    (tmp_path / "leak.py").write_text("import cython\n\ndef half(value):\n    assert value > 0\n    return value\n")
    program = ("import sys; from pathlib import Path; import cython_backend as b; b.install()\n"
               "try: b.translate(Path('leak.py'), Path('leak.c'), 'leak')\n"
               "except b.BackendError as error: sys.exit(str(error))")
    done = subprocess.run(["python3", "-c", program], cwd=tmp_path, capture_output=True, text=True,
                          env={"PYTHONPATH": str(ROOT / "build"), "PATH": _path()})
    assert done.returncode != 0
    assert "leak.py:4: needs the Python runtime" in done.stderr
    assert not (tmp_path / "leak.c").exists()


def _path() -> str:
    import os
    import sys
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def test_a_leak_is_reported_once_a_line() -> None:
    assert cython_backend._leaks('#line 3 "a.py"\n  PyErr_Clear();\n  PyErr_Clear(); /* __Pyx_x */\n  __PYX_ERR_x = 0;') == \
        ["a.py:3: needs the Python runtime (PyErr_Clear): not in the subset, see docs/subset.md"]
