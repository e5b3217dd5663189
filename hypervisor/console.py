"""The operator's console on COM1: whole lines from the hypervisor, and the line being typed below them."""
from typing import Annotated, Final

from hypervisor.arch_x86 import serial
from hypervisor.lang import char_at, struct, u8, u32

PROMPT: Final = "krait> "
LINE_BYTES: Final = 80
NEWLINE: Final = 10
CAPTURE_BYTES: Final = 8192


@struct
class Prompt:
    """The line being typed. While shown, other lines are printed above it."""

    shown: bool
    in_raw_line: bool  # an attached guest has begun a line
    length: u32
    text: Annotated[list[u8], LINE_BYTES]


prompt: Final = Prompt()


@struct
class Capture:
    """What a command prints that came by the channel: it goes there, not to COM1."""

    active: bool
    refused: bool  # the command said no
    length: u32
    lost: u32  # bytes that did not fit
    text: Annotated[list[u8], CAPTURE_BYTES]


capture: Final = Capture()


def say(text: str) -> None:
    """Print one line (ASCII; the line end is added), or answer so. Never waits once interrupts run."""
    if capture.active:
        _capture(text)
    else:
        show(text)


def refuse(text: str) -> None:
    """As say: a command does not do what it was asked to, and why."""
    capture.refused = True
    say(text)


def start_capture() -> None:
    """What is said from now on is kept in `capture`."""
    capture.active = True
    capture.refused = False
    capture.length = 0
    capture.lost = 0


def _capture(text: str) -> None:
    index: u32 = 0
    while char_at(text, index) != 0:
        _capture_byte(char_at(text, index))
        index += 1
    _capture_byte(NEWLINE)


def _capture_byte(byte: u8) -> None:
    if capture.length == CAPTURE_BYTES:
        capture.lost += 1
        return
    capture.text[capture.length] = byte
    capture.length += 1


def show(text: str) -> None:
    """Print one line on COM1, whoever asked."""
    begin_line()
    write(text)
    end_line()


def write(text: str) -> None:
    """Print text as it is: part of a line, between begin_line and end_line."""
    index: u32 = 0
    byte = char_at(text, index)
    while byte != 0:
        serial.put(byte)
        index += 1
        byte = char_at(text, index)


def write_raw(byte: u8) -> None:
    """Print one byte of the guest that is attached; a newline gets its return."""
    if byte == NEWLINE:
        write("\r\n")
    else:
        serial.put(byte)
    prompt.in_raw_line = byte != NEWLINE


def begin_line() -> None:
    """Take the prompt away, if it is shown, to print a line in its place; or end an attached guest's line."""
    if prompt.shown:
        write("\r\x1b[K")
    elif prompt.in_raw_line:
        write("\r\n")
        prompt.in_raw_line = False


def end_line() -> None:
    """End the line and show the prompt again."""
    write("\r\n")
    if prompt.shown:
        _draw_prompt()


def show_prompt() -> None:
    """Show an empty prompt (again)."""
    prompt.length = 0
    prompt.shown = True
    _draw_prompt()


def hide_prompt() -> None:
    """Take the prompt away."""
    if prompt.shown:
        write("\r\x1b[K")
    prompt.shown = False


def _draw_prompt() -> None:
    write(PROMPT)
    for i in range(prompt.length):
        serial.put(prompt.text[i])
