"""What the hypervisor has to say for itself: printed on the operator's console as it comes, and the last messages kept.

Answers to commands and guests' lines are not messages. Who logs what a guest can cause bounds how often.
"""
from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hypervisor import clock
from hypervisor.channel.state import link
from hypervisor.console import capture, say, show
from hypervisor.cpu import owe
from hypervisor.lang import char_at, struct, u8, u32, u64
from hypervisor.model import WORK_CHANNEL

MESSAGES: Final = 128  # power of two
TEXT_BYTES: Final = 120
LEVELS: Final = 3


class Level(IntEnum):
    """How much a message matters."""

    INFO = 0
    WARNING = 1  # something was refused or went wrong for one VM
    ERROR = 2  # a VM crashed, or something of ours is broken


LEVEL_NAMES: Final[Annotated[list[str], LEVELS]] = ["info", "warning", "error"]


@struct
class Message:
    """One line, cut at TEXT_BYTES - 1 characters."""

    us: u64  # since boot
    level: Level
    text: Annotated[list[u8], TEXT_BYTES]


@struct
class Ring:
    """Message n stands in messages[n % MESSAGES] until message n + MESSAGES comes."""

    written: u64  # messages so far
    messages: Annotated[list[Message], MESSAGES]


ring: Final = Ring()


def info(text: str) -> None:
    """Say and keep."""
    _say(text)
    keep(Level.INFO, text)


def warning(text: str) -> None:
    """Say and keep."""
    _say(text)
    keep(Level.WARNING, text)


def error(text: str) -> None:
    """Say and keep."""
    _say(text)
    keep(Level.ERROR, text)


def _say(text: str) -> None:
    """The operator is told, and who gave the command that led to it."""
    show(text)
    if capture.active:
        say(text)


def keep(level: Level, text: str) -> None:
    """Keep a message without printing it."""
    message = ring.messages[ring.written % MESSAGES]
    message.us = clock.since_boot_us()
    message.level = level
    length: u32 = 0
    while length < TEXT_BYTES - 1 and char_at(text, length) != 0:
        message.text[length] = char_at(text, length)
        length += 1
    message.text[length] = 0
    ring.written += 1
    if link.connected:
        owe(WORK_CHANNEL)


def first_kept() -> u64:
    """The number of the oldest message that is still there."""
    return ring.written - MESSAGES if ring.written > MESSAGES else 0


def get(number: u64) -> Message:
    """Message `number`, first_kept() .. ring.written - 1."""
    return ring.messages[number % MESSAGES]
