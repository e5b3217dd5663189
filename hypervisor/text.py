"""Texts of the operator and of configuration: comparison, numbers, words. NUL-terminated ASCII."""
from typing import Final

from hypervisor.arch_x86.intrinsics import load_u8, store_u8
from hypervisor.lang import char_at, u32, u64

SPACE: Final = 32
NOT_A_NUMBER: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF


def size(bytes_: u64) -> u64:
    """In MiB, or in KiB where that is no whole number: `size_unit` says which."""
    kib: u64 = bytes_ >> 10
    return kib if kib % 1024 != 0 else kib >> 10


def size_unit(bytes_: u64) -> str:
    """KiB or MiB."""
    return "KiB" if (bytes_ >> 10) % 1024 != 0 else "MiB"


def same(a: str, b: str) -> bool:
    """Whether two texts are equal."""
    i: u32 = 0
    while char_at(a, i) == char_at(b, i):
        if char_at(a, i) == 0:
            return True
        i += 1
    return False


def is_empty(text: str) -> bool:
    """Whether the text has no character."""
    return char_at(text, 0) == 0


def cut_word(line: u64) -> u64:
    """End the first word of the line at this address by NUL; the address of the next word, or of the line's end.

    The line must not begin with a space.
    """
    place = line
    while load_u8(place) not in (0, SPACE):
        place += 1
    while load_u8(place) == SPACE:
        store_u8(place, 0)
        place += 1
    return place


def skip_spaces(line: u64) -> u64:
    """The address of the first character that is no space."""
    place = line
    while load_u8(place) == SPACE:
        place += 1
    return place


def number_at(place: u64) -> u64:
    """The decimal number at this address; NOT_A_NUMBER if it is none."""
    value: u64 = 0
    digits: u32 = 0
    while load_u8(place + digits) != 0:
        digit = load_u8(place + digits)
        if digit < 48 or digit > 57 or digits == 18:
            return NOT_A_NUMBER
        value = value * 10 + digit - 48
        digits += 1
    return value if digits != 0 else NOT_A_NUMBER
