"""Mistakes that only show at run time: each function makes one."""
from typing import Annotated, Final

from hypervisor.lang import u8, u32, u64

TABLE: Final[Annotated[list[u8], 4]] = [1, 2, 3, 4]


def lower(a: u64, b: u64) -> u64:
    """a - b, wrong when b is greater."""
    return a - b


def narrow(value: u32) -> u8:
    """The value as a byte, wrong above 255."""
    return value


def pick(index: u32) -> u8:
    """An element, wrong above 3."""
    return TABLE[index]


def must_be_even(value: u32) -> u32:
    """Half the value."""
    assert value & 1 == 0
    return value // 2
