"""A byte ring with free-running counters, a checksum, a table of functions, and formatting into it."""
from typing import Annotated, Final

from hypervisor.lang import char_at, i64, sext_i64, struct, u8, u16, u32, u64, union, wrap_u16, wrap_u32

RING_BYTES: Final = 256
NAMES: Final[Annotated[list[str], 3]] = ["sum", "xor", "rotate"]


@struct
class Ring:
    """Counters run freely and are taken modulo the size."""

    head: u32
    tail: u32
    lost: u16
    bytes: Annotated[list[u8], RING_BYTES]


@union
class Word:
    """Four bytes as one number."""

    value: u32
    parts: Annotated[list[u8], 4]


def put(ring: Ring, value: u8) -> bool:
    """Append a byte; False and a count if the ring is full."""
    if wrap_u32(ring.head - ring.tail) >= RING_BYTES:
        ring.lost = wrap_u16(ring.lost + 1)
        return False
    ring.bytes[ring.head % RING_BYTES] = value
    ring.head = wrap_u32(ring.head + 1)
    return True


def take(ring: Ring) -> i64:
    """The oldest byte, -1 if there is none."""
    if ring.head == ring.tail:
        return -1
    value = ring.bytes[ring.tail % RING_BYTES]
    ring.tail = wrap_u32(ring.tail + 1)
    return value


def put_word(ring: Ring, value: u32) -> u32:
    """Append four bytes, lowest first; how many fitted."""
    word = Word()
    word.value = value
    fitted: u32 = 0
    for part in word.parts:
        if put(ring, part):
            fitted += 1
    return fitted


def by_sum(state: u32, value: u8) -> u32:
    """A checksum's step."""
    return wrap_u32(state + value)


def by_xor(state: u32, value: u8) -> u32:
    """A checksum's step."""
    return state ^ u32(value) << 8


def by_rotation(state: u32, value: u8) -> u32:
    """A checksum's step."""
    return wrap_u32(state << 5 | state >> 27) ^ value


STEPS: Final = (by_sum, by_xor, by_rotation)


def checksum(ring: Ring, kind: u32) -> u32:
    """Checksum of what is in the ring, not taking it."""
    state: u32 = 0x1234_5678
    at = ring.tail
    while at != ring.head:
        state = STEPS[kind % 3](state, ring.bytes[at % RING_BYTES])
        at = wrap_u32(at + 1)
    return state


def put_text(ring: Ring, text: str) -> None:
    """Append a text without its end."""
    i: u64 = 0
    while char_at(text, i) != 0:
        put(ring, char_at(text, i))
        i += 1


def report(ring: Ring, kind: u32, value: u64, flag: bool) -> None:
    """Append a line on the ring's state."""
    put_text(ring, f"{NAMES[kind % 3]:<8}|{value:#x} {sext_i64(value)} {value & 0xFFFF:5d} {checksum(ring, kind):08x} {flag}\n")
