"""Sends what a terminal would obey, what looks like another VM, and a line that is too long."""
from typing import Annotated, Final

from guest_pv_drivers import console
from hypervisor.lang import address, char_at, struct, u8, u32, u64

LONG_LINE: Final = 200


@struct(align=256)
class Text:
    """Bytes on their way out."""

    length: u64
    byte: Annotated[list[u8], 504]


text: Final = Text()


def add(byte: u8) -> None:
    """One more byte."""
    text.byte[text.length] = byte
    text.length += 1


def add_all(more: str) -> None:
    """Several."""
    n: u32 = 0
    while char_at(more, n) != 0:
        add(char_at(more, n))
        n += 1


def escape() -> u32:
    """All in one write."""
    add_all("before\x1b[2J\x07")
    add(0x9B)
    add_all("\x7fafter\r\n[b] forged\nlong ")
    for _ in range(LONG_LINE):
        add(0x78)
    add_all("\n")
    console.write(address(text.byte), text.length)
    return 0
