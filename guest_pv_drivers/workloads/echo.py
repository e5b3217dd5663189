"""Says back each line typed for this VM, until one is `quit`."""
from typing import Annotated, Final

from guest_pv_drivers import console, threads
from guest_pv_drivers.console import say
from hypervisor.abi import EVENT_CONSOLE
from hypervisor.lang import address, char_at, offsetof, struct, text_at, u8, u32

LINE_BYTES: Final = 80
QUIT: Final = "quit"
FIRST_PRINTABLE: Final = 32


@struct(align=256)
class Line:
    """What was typed so far; a NUL stands behind it."""

    byte: Annotated[list[u8], LINE_BYTES]
    length: u32
    typed: u8  # the latest byte


line: Final = Line()


def is_quit() -> bool:
    """Whether the line is `quit`."""
    for i in range(5):
        if line.byte[i] != char_at(QUIT, u32(i)):
            return False
    return True


def next_byte() -> u8:
    """The next byte typed; sleeps until there is one."""
    while console.read(address(line) + offsetof(Line, "typed"), 1) == 0:
        threads.wait(EVENT_CONSOLE, 0)
    return line.typed


def echo() -> u32:
    """Line by line."""
    say("type something")
    while True:
        byte = next_byte()
        if byte >= FIRST_PRINTABLE and line.length < LINE_BYTES - 1:
            line.byte[line.length] = byte
            line.length += 1
            line.byte[line.length] = 0
        elif byte < FIRST_PRINTABLE and line.length != 0:
            if is_quit():
                return 0
            say(f"heard: {text_at(address(line.byte))}")
            line.length = 0
