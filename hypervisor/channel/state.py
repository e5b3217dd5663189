"""What the channel is about to do: who listens, and what is owed to it."""
from typing import Annotated, Final

from hypervisor.lang import struct, u8, u32, u64
from hypervisor.channel.frames import Parser

COMMAND_BYTES: Final = 256


@struct
class Answer:
    """The request that is being answered; the next frame from the host waits until it is."""

    active: bool
    stream: u32
    kind: u32  # FrameKind of its frames: TEXT, VM, HOST
    next: u32  # TEXT: byte of console.capture; VM: place in the table
    refused: bool


@struct
class Link:
    """The other end."""

    connected: bool  # it has said HELLO
    flags: u32  # WANT_*
    hello_due: bool
    refusal_due: bool
    refusal_why: u32
    refusal_kind: u32
    refusal_stream: u32
    log_next: u64
    event_next: u64
    consoles_dirty: bool  # one may have something to be sent
    console_turn: u32  # place in the table after the one that was served last
    answer: Answer
    parser: Parser
    command: Annotated[list[u8], COMMAND_BYTES]


link: Final = Link()
