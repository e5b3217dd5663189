"""COM1 and COM2, 16550 UARTs: output ring drained by the transmitter's interrupt, input ring filled by the receiver's.

Until interrupts are routed, and in a panic, output of COM1 is polled instead. A full input ring of COM2 holds back who sends.
COM1 is the operator's: the functions that name no port are its. TI PC16550D data sheet, section 8.
"""
from typing import Annotated, Final

from hypervisor.arch_x86.intrinsics import inb, outb, pause
from hypervisor.lang import struct, u8, u16, u32, u64, wrap_u32

COM1_PORT: Final[u16] = 0x3F8
COM1_IRQ: Final = 4
COM2_PORT: Final[u16] = 0x2F8
COM2_IRQ: Final = 3

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
ROUNDS_MOST: Final = 64  # fillings of the FIFO that one interrupt does: an emulated line is never busy
POLL_LIMIT: Final = 10_000_000  # reads of LSR before a stuck transmitter is given up

OUTPUT_BYTES: Final = 32768  # power of two
RESERVED_BYTES: Final = 8192  # of the output ring, for the hypervisor's own lines
INPUT_BYTES: Final = 1024  # power of two
LOW_BYTES: Final = 256  # of the output ring left to be sent, when wants_room is told
NO_INPUT: Final = 0x100  # what take() answers when nothing was received


@struct
class Serial:
    """A UART and its rings; head and tail count bytes without end (mod 2^32)."""

    port: u16
    present: bool
    by_interrupt: bool
    transmitting: bool  # the transmit interrupt is enabled
    holds_back: bool  # a full input ring stops the receiver; else it loses bytes
    held: bool  # it has
    wants_room: bool  # tell (Cpu.work) when little of the output ring is left to be sent
    output_head: u32  # written so far
    output_tail: u32  # sent so far
    input_head: u32
    input_tail: u32
    output_dropped: u64
    input_dropped: u64
    output: Annotated[list[u8], OUTPUT_BYTES]
    input: Annotated[list[u8], INPUT_BYTES]


com1: Final = Serial()
com2: Final = Serial()


def init() -> bool:
    """Find and set up COM1 at 115200 8N1, polled. False: there is none."""
    return open_port(com1, COM1_PORT)


def open_port(uart: Serial, port: u16) -> bool:
    """Find and set up the UART at `port`. False: there is none."""
    uart.port = port
    outb(port + SCR, 0x5A)
    uart.present = inb(port + SCR) == 0x5A
    if not uart.present:
        return False
    outb(port + IER, 0)
    outb(port + LCR, LCR_DLAB)
    outb(port + THR, 1)
    outb(port + IER, 0)
    outb(port + LCR, LCR_8N1)
    outb(port + IIR, FCR_ENABLE_CLEAR)
    outb(port + MCR, MCR_DTR_RTS_OUT2)
    return True


def start_interrupts() -> None:
    """From now on COM1's rings are used; the interrupt must be routed to on_interrupt."""
    start_port(com1)


def start_port(uart: Serial) -> None:
    """From now on the rings are used."""
    if uart.present:
        uart.by_interrupt = True
        _enable(uart)


def put(byte: u8) -> None:
    """Send one byte on COM1, at once or by the ring. A full ring drops it and counts."""
    put_to(com1, byte)


def put_to(uart: Serial, byte: u8) -> None:
    """Send one byte."""
    if not uart.present:
        return
    if not uart.by_interrupt:
        _send_polled(uart, byte)
        return
    if wrap_u32(uart.output_head - uart.output_tail) == OUTPUT_BYTES:
        uart.output_dropped += 1
        return
    uart.output[uart.output_head % OUTPUT_BYTES] = byte
    uart.output_head = wrap_u32(uart.output_head + 1)
    if not uart.transmitting:
        uart.transmitting = True
        _enable(uart)  # an empty transmitter interrupts at once


def take() -> u32:
    """The next byte received on COM1, or NO_INPUT."""
    return take_from(com1)


def take_from(uart: Serial) -> u32:
    """The next byte received, or NO_INPUT."""
    if uart.input_head == uart.input_tail:
        return NO_INPUT
    byte = uart.input[uart.input_tail % INPUT_BYTES]
    uart.input_tail = wrap_u32(uart.input_tail + 1)
    if uart.held and wrap_u32(uart.input_head - uart.input_tail) <= INPUT_BYTES // 2:
        uart.held = False
        _enable(uart)
    return byte


def has_input() -> bool:
    """Whether take() would give a byte."""
    return com1.input_head != com1.input_tail


def is_crowded() -> bool:
    """Whether only the part of COM1's ring is left that is kept for the hypervisor's own lines."""
    return com1.by_interrupt and queued(com1) > OUTPUT_BYTES - RESERVED_BYTES


def queued(uart: Serial) -> u32:
    """Bytes in the output ring."""
    return wrap_u32(uart.output_head - uart.output_tail)


def on_interrupt() -> None:
    """Serve receiver and transmitter of both until they have no cause left (ISA lines are edge-triggered)."""
    _serve(com1)
    _serve(com2)


def _serve(uart: Serial) -> None:
    if not uart.by_interrupt:
        return
    rounds: u32 = 0
    while inb(uart.port + IIR) & IIR_NONE_PENDING == 0:
        if rounds == ROUNDS_MOST:
            outb(uart.port + IER, 0)  # the line falls and rises: the rest is another interrupt's
            _enable(uart)
            return
        rounds += 1
        while not uart.held and inb(uart.port + LSR) & LSR_DATA_READY != 0:
            _receive_on(uart)
        if inb(uart.port + LSR) & LSR_THR_EMPTY != 0:
            _fill_transmitter(uart)


def _enable(uart: Serial) -> None:
    """The interrupts that are wanted now."""
    outb(uart.port + IER, (0 if uart.held else IER_RECEIVE) | (IER_TRANSMIT if uart.transmitting else 0))


def flush() -> None:
    """Send by polling what is in COM1's ring, and poll from now on: for the end of the machine only."""
    com1.by_interrupt = False
    if not com1.present:
        return
    outb(COM1_PORT + IER, 0)
    while com1.output_tail != com1.output_head:
        _send_polled(com1, com1.output[com1.output_tail % OUTPUT_BYTES])
        com1.output_tail = wrap_u32(com1.output_tail + 1)


def drain() -> None:
    """Wait until the last byte that was sent by polling has left: a machine that ends now would lose it."""
    polls: u32 = 0
    while com1.present and inb(COM1_PORT + LSR) & LSR_TRANSMITTER_EMPTY == 0 and polls < POLL_LIMIT:
        polls += 1
        pause()


def _receive_on(uart: Serial) -> None:
    """One byte from the receiver; a ring that cannot take it holds back or loses it."""
    if uart.holds_back and wrap_u32(uart.input_head - uart.input_tail) == INPUT_BYTES:
        uart.held = True
        _enable(uart)
    else:
        keep(uart, inb(uart.port + THR))


def keep(uart: Serial, byte: u8) -> None:
    """A byte received."""
    if wrap_u32(uart.input_head - uart.input_tail) == INPUT_BYTES:
        uart.input_dropped += 1
        return
    uart.input[uart.input_head % INPUT_BYTES] = byte
    uart.input_head = wrap_u32(uart.input_head + 1)


def _fill_transmitter(uart: Serial) -> None:
    sent: u32 = 0
    while sent < FIFO_BYTES and uart.output_tail != uart.output_head:
        outb(uart.port + THR, uart.output[uart.output_tail % OUTPUT_BYTES])
        uart.output_tail = wrap_u32(uart.output_tail + 1)
        sent += 1
    if sent == 0 and uart.transmitting:
        uart.transmitting = False
        _enable(uart)


def _send_polled(uart: Serial, byte: u8) -> None:
    tries: u32 = 0
    while inb(uart.port + LSR) & LSR_THR_EMPTY == 0:
        tries += 1
        if tries == POLL_LIMIT:
            uart.present = False
            return
        pause()
    outb(uart.port + THR, byte)
