"""Options on the command line that the loader handed over: words `name=number`, decimal or 0x hexadecimal."""
from __future__ import annotations

from typing import Final

from hypervisor.boot_info import CMDLINE_BYTES, info
from hypervisor.lang import char_at, u8, u32, u64, wrap_u64

SPACE: Final = 32
DIGIT_0: Final = 48
DIGIT_9: Final = 57
LOWER_A: Final = 97
LOWER_F: Final = 102
LOWER_X: Final = 120
EQUALS: Final = 61
NO_DIGIT: Final = 16


def number(name: str, default: u64) -> u64:
    """The number of the first word `name=number`, modulo 2^64; `default` if there is none or it is no number."""
    place: u32 = 0
    while place < CMDLINE_BYTES and info.cmdline[place] != 0:
        if info.cmdline[place] != SPACE and (place == 0 or info.cmdline[place - 1] == SPACE):
            value_at = _behind(name, place)
            if value_at != 0:
                return _value(value_at, default)
        place += 1
    return default


def _byte(place: u32) -> u8:
    """One character of the command line, 0 at and behind its end."""
    return info.cmdline[place] if place < CMDLINE_BYTES else 0


def _behind(name: str, start: u32) -> u32:
    """Where the value begins if the word at `start` is `name=...`; 0: it is not."""
    index: u32 = 0
    while char_at(name, index) != 0:
        if _byte(start + index) != char_at(name, index):
            return 0
        index += 1
    return start + index + 1 if _byte(start + index) == EQUALS else 0


def _value(start: u32, default: u64) -> u64:
    """The number that fills the word from `start` on."""
    base: u64 = 10
    place: u32 = start
    value: u64 = 0
    if _byte(place) == DIGIT_0 and _byte(place + 1) == LOWER_X:
        base = 16
        place += 2
    first: u32 = place
    while _byte(place) != 0 and _byte(place) != SPACE:
        digit = _digit(_byte(place))
        if digit >= base:
            return default
        value = wrap_u64(value * base + digit)
        place += 1
    return value if place != first else default


def _digit(character: u8) -> u64:
    """Value of a digit, NO_DIGIT if it is none."""
    if DIGIT_0 <= character <= DIGIT_9:
        return character - DIGIT_0
    if LOWER_A <= character <= LOWER_F:
        return character - LOWER_A + 10
    return NO_DIGIT
