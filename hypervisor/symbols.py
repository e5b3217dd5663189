"""Names of code addresses: function, Python file and line, from the table that the build links into the image.

The format is described in build/symbol_table.py. Nothing here trusts a lock or allocates: panic code calls it.
"""
from __future__ import annotations

from typing import Final

from hypervisor.lang import at, link_address, struct, text_at, u8, u32, u64

MAGIC: Final = 0x4D59534B


@struct
class Table:
    """Header of the table; offsets are from its start."""

    magic: u32
    text_base: u32
    function_count: u32
    functions: u32
    lines: u32
    files: u32
    names: u32
    size: u32


@struct
class FunctionEntry:
    """A function: offset from the text base, of its name, of its line stream. One more entry ends the list."""

    start: u32
    name: u32
    lines: u32


@struct
class Byte:
    """One byte of the line stream."""

    value: u8


@struct
class Offset:
    """One entry of the list of files."""

    value: u32


@struct
class Place:
    """Where an address lies. `line` is 0 and `file` empty where no line is known."""

    function: str
    file: str
    line: u32
    offset: u32  # bytes from the start of the function


@struct
class Reader:
    """A position in a line stream."""

    next: u64
    end: u64


def table() -> Table | None:
    """The image's table, None if the image has none."""
    start = link_address("__symbols_start")
    if start + 32 > link_address("__symbols_end"):
        return None
    found = at(Table, start)
    return found if found.magic == MAGIC else None


def lookup(address: u64, place: Place) -> bool:
    """Say where the code at `address` comes from; False if it lies in no function of the image."""
    found = table()
    if found is None:
        return False
    return lookup_in(found, link_address("__symbols_start"), address, place)


def lookup_in(found: Table, base: u64, address: u64, place: Place) -> bool:
    """As lookup, in the table at `base`."""
    if address < found.text_base:
        return False
    offset = address - found.text_base
    low: u64 = 0
    high: u64 = found.function_count
    while low < high:
        middle = (low + high) // 2
        if entry_at(found, base, middle).start <= offset:
            low = middle + 1
        else:
            high = middle
    if low == 0 or offset >= entry_at(found, base, found.function_count).start:
        return False
    entry = entry_at(found, base, low - 1)
    place.function = text_at(base + found.names + entry.name)
    place.offset = u32(offset - entry.start)
    find_line(found, base, low - 1, place)
    return True


def entry_at(found: Table, base: u64, index: u64) -> FunctionEntry:
    """A function's entry."""
    return at(FunctionEntry, base + found.functions + index * 12)


def find_line(found: Table, base: u64, index: u64, place: Place) -> None:
    """Walk the line stream of a function up to place.offset."""
    reader = Reader()
    reader.next = base + found.lines + entry_at(found, base, index).lines
    reader.end = base + found.lines + entry_at(found, base, index + 1).lines
    place.line = 0
    place.file = ""
    covered: u64 = 0
    while reader.next < reader.end:
        covered += read_number(reader)
        if covered > place.offset:
            return
        change = read_number(reader)
        if change & 1 != 0:
            file = at(Offset, base + found.files + read_number(reader) * 4)
            place.file = text_at(base + found.names + file.value)
        delta = change >> 2
        place.line = place.line + delta if change & 2 == 0 else place.line - delta - 1


def read_number(reader: Reader) -> u64:
    """The next number of the stream, seven bits a byte, lowest first."""
    value: u64 = 0
    shift: u64 = 0
    while reader.next < reader.end:
        byte = at(Byte, reader.next).value
        reader.next += 1
        value |= (byte & 0x7F) << (shift & 31)
        shift += 7
        if byte & 0x80 == 0:
            break
    return value
