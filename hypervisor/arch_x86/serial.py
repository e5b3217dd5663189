"""COM1, a 16550 UART: output ring drained by the transmitter's interrupt, input ring filled by the receiver's.

Until interrupts are routed, and in a panic, output is polled instead. TI PC16550D data sheet, section 8.
"""
from typing import Annotated, Final

from hypervisor.arch_x86.intrinsics import inb, outb, pause
from hypervisor.lang import struct, u8, u16, u32, u64, wrap_u32

COM1_PORT: Final[u16] = 0x3F8
COM1_IRQ: Final = 4

# Registers, from the base port.
THR: Final = 0  # transmit (write), RBR: receive (read); divisor low with DLAB
IER: Final = 1  # interrupt enable; divisor high with DLAB
IIR: Final = 2  # interrupt identification (read), FCR: FIFO control (write)
LCR: Final = 3
MCR: Final = 4
LSR: Final = 5
SCR: Final = 7

IER_RECEIVE: Final = 0x01
IER_TRANSMIT: Final = 0x02
IIR_NONE_PENDING: Final = 0x01
FCR_ENABLE_CLEAR: Final = 0x07  # FIFOs on and emptied; interrupt at the first byte received
LCR_8N1: Final = 0x03
LCR_DLAB: Final = 0x80
MCR_DTR_RTS_OUT2: Final = 0x0B  # OUT2 lets the interrupt out of the chip on a PC
LSR_DATA_READY: Final = 0x01
LSR_THR_EMPTY: Final = 0x20
LSR_TRANSMITTER_EMPTY: Final = 0x40  # the last bit has left too
FIFO_BYTES: Final = 16
POLL_LIMIT: Final = 10_000_000  # reads of LSR before a stuck transmitter is given up

OUTPUT_BYTES: Final = 32768  # power of two
RESERVED_BYTES: Final = 8192  # of the output ring, for the hypervisor's own lines
INPUT_BYTES: Final = 1024  # power of two
NO_INPUT: Final = 0x100  # what take() answers when nothing was received


@struct
class Serial:
    """The UART and its rings; head and tail count bytes without end (mod 2^32)."""

    port: u16
    present: bool
    by_interrupt: bool
    transmitting: bool  # the transmit interrupt is enabled
    output_head: u32  # written so far
    output_tail: u32  # sent so far
    input_head: u32
    input_tail: u32
    output_dropped: u64
    input_dropped: u64
    output: Annotated[list[u8], OUTPUT_BYTES]
    input: Annotated[list[u8], INPUT_BYTES]


com1: Final = Serial()


def init() -> bool:
    """Find and set up COM1 at 115200 8N1, polled. False: there is none."""
    com1.port = COM1_PORT
    outb(COM1_PORT + SCR, 0x5A)
    com1.present = inb(COM1_PORT + SCR) == 0x5A
    if not com1.present:
        return False
    outb(COM1_PORT + IER, 0)
    outb(COM1_PORT + LCR, LCR_DLAB)
    outb(COM1_PORT + THR, 1)
    outb(COM1_PORT + IER, 0)
    outb(COM1_PORT + LCR, LCR_8N1)
    outb(COM1_PORT + IIR, FCR_ENABLE_CLEAR)
    outb(COM1_PORT + MCR, MCR_DTR_RTS_OUT2)
    return True


def start_interrupts() -> None:
    """From now on the rings are used; the interrupt must be routed to on_interrupt."""
    if com1.present:
        com1.by_interrupt = True
        outb(COM1_PORT + IER, IER_RECEIVE)


def put(byte: u8) -> None:
    """Send one byte, at once or by the ring. A full ring drops it and counts."""
    if not com1.present:
        return
    if not com1.by_interrupt:
        _send_polled(byte)
        return
    if wrap_u32(com1.output_head - com1.output_tail) == OUTPUT_BYTES:
        com1.output_dropped += 1
        return
    com1.output[com1.output_head % OUTPUT_BYTES] = byte
    com1.output_head = wrap_u32(com1.output_head + 1)
    if not com1.transmitting:
        com1.transmitting = True
        outb(COM1_PORT + IER, IER_RECEIVE | IER_TRANSMIT)  # an empty transmitter interrupts at once


def take() -> u32:
    """The next byte received, or NO_INPUT."""
    if com1.input_head == com1.input_tail:
        return NO_INPUT
    byte = com1.input[com1.input_tail % INPUT_BYTES]
    com1.input_tail = wrap_u32(com1.input_tail + 1)
    return byte


def has_input() -> bool:
    """Whether take() would give a byte."""
    return com1.input_head != com1.input_tail


def is_crowded() -> bool:
    """Whether only the part of the ring is left that is kept for the hypervisor's own lines."""
    return com1.by_interrupt and wrap_u32(com1.output_head - com1.output_tail) > OUTPUT_BYTES - RESERVED_BYTES


def on_interrupt() -> None:
    """Serve receiver and transmitter until the UART has no cause left (its ISA line is edge-triggered)."""
    while inb(COM1_PORT + IIR) & IIR_NONE_PENDING == 0:
        while inb(COM1_PORT + LSR) & LSR_DATA_READY != 0:
            _receive(inb(COM1_PORT + THR))
        if inb(COM1_PORT + LSR) & LSR_THR_EMPTY != 0:
            _fill_transmitter()


def flush() -> None:
    """Send by polling what is in the ring, and poll from now on: for the end of the machine only."""
    com1.by_interrupt = False
    if not com1.present:
        return
    outb(COM1_PORT + IER, 0)
    while com1.output_tail != com1.output_head:
        _send_polled(com1.output[com1.output_tail % OUTPUT_BYTES])
        com1.output_tail = wrap_u32(com1.output_tail + 1)


def drain() -> None:
    """Wait until the last byte that was sent by polling has left: a machine that ends now would lose it."""
    polls: u32 = 0
    while com1.present and inb(COM1_PORT + LSR) & LSR_TRANSMITTER_EMPTY == 0 and polls < POLL_LIMIT:
        polls += 1
        pause()


def _receive(byte: u8) -> None:
    if wrap_u32(com1.input_head - com1.input_tail) == INPUT_BYTES:
        com1.input_dropped += 1
        return
    com1.input[com1.input_head % INPUT_BYTES] = byte
    com1.input_head = wrap_u32(com1.input_head + 1)


def _fill_transmitter() -> None:
    sent: u32 = 0
    while sent < FIFO_BYTES and com1.output_tail != com1.output_head:
        outb(COM1_PORT + THR, com1.output[com1.output_tail % OUTPUT_BYTES])
        com1.output_tail = wrap_u32(com1.output_tail + 1)
        sent += 1
    if sent == 0 and com1.transmitting:
        com1.transmitting = False
        outb(COM1_PORT + IER, IER_RECEIVE)


def _send_polled(byte: u8) -> None:
    tries: u32 = 0
    while inb(COM1_PORT + LSR) & LSR_THR_EMPTY == 0:
        tries += 1
        if tries == POLL_LIMIT:
            com1.present = False
            return
        pause()
    outb(COM1_PORT + THR, byte)
