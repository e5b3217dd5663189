"""Names of code addresses: function, Python file and line, from the table that the build links into the image.

The format is described in build/symbol_table.py. Nothing here trusts a lock or allocates: panic code calls it.
"""
from __future__ import annotations

from typing import Final

from hypervisor.lang import at, link_address, sizeof, struct, text_at, u8, u32, u64

MAGIC: Final = 0x4D59534B
BLOCK: Final = 16
IN_HOME: Final = 1 << 31  # of an entry of the list of files


@struct
class Table:
    """Header of the table; offsets are from its start."""

    magic: u32
    text_base: u32
    text_size: u32
    function_count: u32
    blocks: u32
    files: u32
    records: u32
    names: u32


@struct
class Block:
    """BLOCK functions: where the first one starts, from the text base; its record and its name, from the first of all."""

    start: u32
    record: u32
    name: u32


@struct
class Byte:
    """One byte of a record, or of a name."""

    value: u8


@struct
class Offset:
    """One entry of the list of files."""

    value: u32


@struct
class Place:
    """Where an address lies: file `file` of folder `home`. `line` is 0 and `file` empty where no line is known."""

    function: str
    home: str
    file: str
    line: u32
    offset: u32  # bytes from the start of the function


@struct
class Reader:
    """A position in a record."""

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
    if address < found.text_base or address - found.text_base >= found.text_size:
        return False
    offset = address - found.text_base
    low: u64 = 0
    high: u64 = (found.function_count + BLOCK - 1) // BLOCK
    while low < high:
        middle = (low + high) // 2
        if block_at(found, base, middle).start <= offset:
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return False
    find_function(found, base, low - 1, offset, place)
    return True


def block_at(found: Table, base: u64, index: u64) -> Block:
    """A block of functions."""
    return at(Block, base + found.blocks + index * sizeof(Block))


def find_function(found: Table, base: u64, index: u64, offset: u64, place: Place) -> None:
    """Walk a block up to the last function that starts at or before `offset`, which the first one does."""
    block = block_at(found, base, index)
    reader = Reader()
    reader.next = base + found.records + block.record
    reader.end = base + found.names
    name: u64 = base + found.names + block.name
    start: u64 = block.start
    lines: u64 = 0
    length: u64 = 0
    for position in range(min(BLOCK, found.function_count - index * BLOCK)):
        next_start = start + read_number(reader)
        if next_start > offset:
            break
        if position != 0:
            name = behind(name)
        start = next_start
        length = read_number(reader)
        lines = reader.next
        reader.next += length
    place.function = text_at(name)
    place.offset = u32(offset - start)
    reader.next = lines
    reader.end = lines + length
    find_line(found, base, reader, place)


def behind(name: u64) -> u64:
    """The name that follows a name."""
    place = name
    while at(Byte, place).value != 0:
        place += 1
    return place + 1


def find_line(found: Table, base: u64, reader: Reader, place: Place) -> None:
    """Walk the lines of a function up to place.offset."""
    place.line = 0
    place.file = ""
    place.home = ""
    covered: u64 = 0
    while reader.next < reader.end:
        covered += read_number(reader)
        if covered > place.offset:
            return
        change = read_number(reader)
        if change & 1 != 0:
            file = at(Offset, base + found.files + read_number(reader) * 4)
            place.home = "hypervisor/" if file.value & IN_HOME != 0 else ""
            place.file = text_at(base + found.names + (file.value & (IN_HOME - 1)))
        delta = change >> 2
        place.line = place.line + delta if change & 2 == 0 else place.line - delta - 1


def read_number(reader: Reader) -> u64:
    """The next number of a record, seven bits a byte, lowest first."""
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
