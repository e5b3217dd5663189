"""Bounded formatting: the compiler turns f-strings into calls of these functions. A line is cut at 159 characters.

CPython formats f-strings itself; the text is the same as long as it fits the line.
"""
from typing import Annotated, Final

from hypervisor.lang import address, char_at, struct, text_at, u8, u32, u64, i64, wrap_u64

LINE_BYTES: Final = 160
CUT: Final = "..."

# Styles of a number or a text; build/calls.py knows them.
HEX: Final = 1
PREFIX: Final = 2
ZEROS: Final = 4
LEFT: Final = 8


@struct
class Line:
    """A text being put together."""

    length: u32
    digit_count: u32
    digits: Annotated[list[u8], 24]
    text: Annotated[list[u8], LINE_BYTES]


def begin(line: Line) -> Line:
    """An empty line."""
    line.length = 0
    return line


def put_char(line: Line, char: u8) -> None:
    """Append one character; what does not fit is dropped and the line ends in CUT."""
    if line.length < LINE_BYTES - 1:
        line.text[line.length] = char
        line.length += 1
    else:
        for i in range(3):
            line.text[LINE_BYTES - 4 + i] = char_at(CUT, i)


def pad(line: Line, char: u8, count: u64) -> None:
    """Append `count` times the same character, at most a line full."""
    for _ in range(min(count, LINE_BYTES)):
        put_char(line, char)


def put_text(line: Line, text: str, width: u32, style: u32) -> Line:
    """Append a text in a field of `width` characters, left-justified if style has LEFT."""
    length: u64 = 0
    while char_at(text, length) != 0:
        length += 1
    padding: u64 = width - length if width > length else 0
    if style & LEFT == 0:
        pad(line, ord(" "), padding)
    for i in range(length):
        put_char(line, char_at(text, i))
    if style & LEFT != 0:
        pad(line, ord(" "), padding)
    return line


def put_bool(line: Line, value: bool) -> Line:
    """Append True or False."""
    return put_text(line, "True" if value else "False", 0, LEFT)


def split_digits(line: Line, value: u64, style: u32) -> None:
    """Put the digits of a value into line.digits, last digit first."""
    base: u64 = 16 if style & HEX != 0 else 10
    rest = value
    line.digit_count = 0
    while rest != 0 or line.digit_count == 0:
        digit = rest % base
        line.digits[line.digit_count] = digit + ord("0") if digit < 10 else digit - 10 + ord("a")
        line.digit_count += 1
        rest = rest // base


def put_number(line: Line, negative: bool, value: u64, width: u32, style: u32) -> Line:
    """Append sign, prefix and digits of a number in a field of `width` characters."""
    split_digits(line, value, style)
    used: u64 = line.digit_count + (1 if negative else 0) + (2 if style & PREFIX != 0 else 0)
    padding: u64 = width - used if width > used else 0
    if style & (LEFT | ZEROS) == 0:
        pad(line, ord(" "), padding)
    if negative:
        put_char(line, ord("-"))
    if style & PREFIX != 0:
        put_char(line, ord("0"))
        put_char(line, ord("x"))
    if style & ZEROS != 0:
        pad(line, ord("0"), padding)
    for i in range(line.digit_count):
        put_char(line, line.digits[line.digit_count - 1 - i])
    if style & (LEFT | ZEROS) == LEFT:
        pad(line, ord(" "), padding)
    return line


def put_u64(line: Line, value: u64, width: u32, style: u32) -> Line:
    """Append an unsigned number."""
    return put_number(line, False, value, width, style)


def put_i64(line: Line, value: i64, width: u32, style: u32) -> Line:
    """Append a signed number."""
    return put_number(line, value < 0, wrap_u64(-value) if value < 0 else u64(value), width, style)


def finish(line: Line) -> str:
    """The line as a text; it lives as long as the line."""
    line.text[line.length] = 0
    return text_at(address(line.text))
