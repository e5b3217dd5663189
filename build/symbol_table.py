"""Makes the compact table by which the image itself names the functions and Python lines of its addresses.

Little endian, after a header of eight u32 (hypervisor/symbols.py reads it):
    magic, text base, text size, function count, offset of blocks, offset of files, offset of records, offset of names
    blocks, one for every BLOCK functions: (offset of the first from text base, of its record, of its name)
    record of a function, in rising order: (uvarint distance from the function before, uvarint length of its lines, lines);
        lines: (uvarint address delta, uvarint zigzag(line delta) * 2 + file changed, [uvarint file])
    files: offset of the name of each, with bit 31 if HOME is to be read before it
    names: NUL-terminated, those of the functions in their order, then those of files
"""
from __future__ import annotations

import re
import struct
import subprocess
from bisect import bisect_right
from pathlib import Path

from toolchain import BUILD, run

MAGIC = 0x4D59534B  # "KSYM"
HEADER = struct.Struct("<8I")
HOME = "hypervisor/"  # where nearly all files lie
IN_HOME = 1 << 31
BLOCK = 16  # functions that are found by walking, after a binary search over the blocks
_ROW = re.compile(r"^\S+\s+(\d+)\s+0x([0-9a-f]+)")
_FILE = re.compile(r"^(?:CU: )?(\S+?):(?:\[\+\+\])?$")
_SITE = re.compile(r"^\s*([0-9a-f]+):\s+(?:call|ud2)")

Row = tuple[int, str, int]  # address, file, line


def functions_of(elf: Path, text: tuple[int, int]) -> list[tuple[int, str]]:
    """Start and name of every function in the text section, ascending; one name an address, global ones first.

    Weak symbols are none: with -flto, gcc names each unit's place in .debug_info so, and such an offset can look like text.
    """
    found: dict[int, tuple[bool, str]] = {}
    for line in run(["nm", str(elf)]).splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[1] in "tT" and text[0] <= int(parts[0], 16) < text[1]:
            place, name = int(parts[0], 16), parts[2]
            if not name.startswith(("__text", "__image", ".")):
                found[place] = max(found.get(place, (False, "")), (parts[1] != "t", name))
    return [(place, _python_name(name)) for place, (_, name) in sorted(found.items())]


def _python_name(symbol: str) -> str:
    """`a_b__f.part.0` is the function f; the file says where it stands."""
    return symbol.split(".")[0].rpartition("__")[2] or symbol


def rows_of(elf: Path) -> list[Row]:
    """The line table, ascending, one row an address."""
    rows: dict[int, tuple[str, int]] = {}
    file = ""
    for line in run(["objdump", "--dwarf=decodedline", "-w", str(elf)]).splitlines():
        if row := _ROW.match(line):
            rows[int(row[2], 16)] = (file, int(row[1]))
        elif name := _FILE.match(line.strip()):
            file = _from_root(name[1])
    rows.update(callers_of(elf, [place for place, (file, _) in rows.items() if file.endswith(".h")]))
    return [(place, *where) for place, where in sorted(rows.items())]


def callers_of(elf: Path, places: list[int]) -> dict[int, tuple[str, int]]:
    """The Python lines into which the C of a header (an intrinsic) was inlined, by address."""
    said = subprocess.run(["addr2line", "-i", "-a", "-e", str(elf)], input="".join(f"{place:#x}\n" for place in places),
                          capture_output=True, text=True, check=True).stdout
    found: dict[int, tuple[str, int]] = {}
    place = 0
    for line in said.splitlines():
        if line.startswith("0x"):
            place = int(line, 16)
        elif place not in found and (where := re.match(r"(\S+\.(?:py|S)):(\d+)", line)):
            found[place] = _from_root(where[1]), int(where[2])
    return found


def _from_root(path: str) -> str:
    return path.removeprefix("./").removeprefix(f"{BUILD.parent}/")


def sites_only(elf: Path, rows: list[Row]) -> list[Row]:
    """The rows of calls and of traps alone: what a back-trace of a release image needs."""
    starts = [place for place, _, _ in rows]
    kept: list[Row] = []
    for line in run(["objdump", "-d", "--no-show-raw-insn", str(elf)]).splitlines():
        if site := _SITE.match(line):
            place = int(site[1], 16)
            index = bisect_right(starts, place) - 1
            if index >= 0:
                kept.append((place, rows[index][1], rows[index][2]))
    return kept


def text_range(elf: Path) -> tuple[int, int]:
    """Where the text section lies."""
    places = {line.split()[2]: int(line.split()[0], 16) for line in run(["nm", str(elf)]).splitlines() if len(line.split()) == 3}
    return places["__text_start"], places["__text_end"]


def encode(text: tuple[int, int], functions: list[tuple[int, str]], rows: list[Row]) -> bytes:
    """The table as bytes."""
    files: dict[str, int] = {}
    blocks, records, names = bytearray(), bytearray(), bytearray()
    last_start, index = text[0], 0
    ends = [place for place, _ in functions[1:]] + [text[1]]
    for number, ((start, name), end) in enumerate(zip(functions, ends)):
        if number % BLOCK == 0:
            blocks += struct.pack("<3I", start - text[0], len(records), len(names))
            last_start = start
        while index < len(rows) and rows[index][0] < start:
            index += 1
        first = index
        while index < len(rows) and rows[index][0] < end:
            index += 1
        lines = _lines(start, rows[first:index], files)
        records += _uvarint(start - last_start) + _uvarint(len(lines)) + lines
        names += name.encode("ascii") + b"\0"
        last_start = start
    file_table = bytearray()
    for file in files:
        file_table += struct.pack("<I", len(names) | (IN_HOME if file.startswith(HOME) else 0))
        names += file.removeprefix(HOME).encode("ascii") + b"\0"
    at_files = HEADER.size + len(blocks)
    at_records = at_files + len(file_table)
    header = HEADER.pack(MAGIC, text[0], text[1] - text[0], len(functions), HEADER.size, at_files, at_records, at_records + len(records))
    return header + bytes(blocks + file_table + records + names)


def _lines(start: int, rows: list[Row], files: dict[str, int]) -> bytes:
    """The lines of one function; numbers files as they come."""
    lines = bytearray()
    place, last_file, last_line = start, -1, 0
    for where, file, line in rows:
        number = files.setdefault(file, len(files))
        if number != last_file or line != last_line:
            delta = line - last_line
            zigzag = delta * 2 if delta >= 0 else -delta * 2 - 1
            lines += _uvarint(where - place) + _uvarint(zigzag * 2 + (number != last_file))
            lines += _uvarint(number) if number != last_file else b""
            place, last_file, last_line = where, number, line
    return bytes(lines)


def _uvarint(value: int) -> bytes:
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def table_of(elf: Path, release: bool) -> bytes:
    """The table of an image: all lines, or in a release image those of calls and traps."""
    text, rows = text_range(elf), rows_of(elf)
    return encode(text, functions_of(elf, text), sites_only(elf, rows) if release else rows)
