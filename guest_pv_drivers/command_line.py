"""Parameters of the command line: `key=value` words parted by blanks."""
from typing import Final

from guest_pv_drivers import start_info
from hypervisor.lang import address, char_at, i32, text_at, u32, u64

BLANK: Final = 32
EQUALS: Final = 61
DIGIT_0: Final = 48
DIGIT_9: Final = 57


def text() -> str:
    """The whole command line."""
    return text_at(address(start_info.get().cmdline))


def length(word: str) -> u32:
    """Bytes of word."""
    n: u32 = 0
    while char_at(word, n) != 0:
        n += 1
    return n


def starts(line: str, i: u32, word: str) -> bool:
    """Whether line has word at i; i is not behind its end."""
    n: u32 = 0
    while char_at(word, n) != 0:
        if char_at(line, i + n) != char_at(word, n):
            return False
        n += 1
    return True


def find(key: str) -> i32:
    """Where the value of key begins, -1 when the key is not there."""
    line = text()
    i: u32 = 0
    while char_at(line, i) != 0:
        begins_word = i == 0 or char_at(line, i - 1) == BLANK
        if begins_word and starts(line, i, key) and char_at(line, i + length(key)) == EQUALS:
            return i32(i + length(key) + 1)
        i += 1
    return -1


def has_value(key: str, value: str) -> bool:
    """Whether the command line says key=value."""
    where = find(key)
    if where < 0 or not starts(text(), u32(where), value):
        return False
    end = char_at(text(), u32(where) + length(value))
    return end in (0, BLANK)


def number(key: str, default: u64) -> u64:
    """The decimal number of key, or default where the key is not given."""
    where = find(key)
    if where < 0:
        return default
    i = u32(where)
    value: u64 = 0
    while DIGIT_0 <= char_at(text(), i) <= DIGIT_9:
        value = value * 10 + (char_at(text(), i) - DIGIT_0)
        i += 1
    return value
