"""Random numbers from a printed seed (xorshift64*, Marsaglia 2003, Vigna 2016), plain and nasty."""
from typing import Annotated, Final

from hypervisor.lang import struct, u32, u64, wrap_u64

MULTIPLIER: Final[u64] = 0x2545F4914F6CDD1D
NASTY_COUNT: Final = 16
NASTY: Final[Annotated[list[u64], NASTY_COUNT]] = [
    0, 1, 2, 0x7F, 0xFF, 0xFFF, 0x1000, 0x1001, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFFFFFF,
    0x8000000000000000, 0xFFFFFFFFFFFFF000, 0xFFFFFFFFFFFFFFFF]


@struct
class Chance:
    """The generator."""

    state: u64


chance: Final = Chance()


def seed(value: u64) -> None:
    """Begin; 0 is no seed."""
    chance.state = value if value != 0 else 1


def draw() -> u64:
    """64 bits."""
    x = chance.state
    x = x ^ (x >> 12)
    x = x ^ wrap_u64(x << 25)
    x = x ^ (x >> 27)
    chance.state = x
    return wrap_u64(x * MULTIPLIER)


def below(limit: u64) -> u64:
    """From 0 to limit - 1."""
    return (draw() >> 11) % limit


def nasty() -> u64:
    """A number that breaks things: an edge, a power of two and its neighbours, or any."""
    match u32(below(4)):
        case 0:
            return NASTY[below(NASTY_COUNT)]
        case 1:
            return wrap_u64((u64(1) << (draw() & 63)) + below(3) - 1)
        case 2:
            return draw() >> (draw() & 63)
        case _:
            return draw()
