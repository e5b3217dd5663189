"""16550A UART. What the guest sends leaves at once; what it receives waits in a 16-byte FIFO.

Source: National Semiconductor PC16550D data sheet (TL/C/8652, June 1995).

| offset | a guest writes | what happens |
|---|---|---|
| 0 (DLAB 0) | THR | the byte goes out (in loop-back: into the receiver); the transmitter is empty again at once |
| 0, 1 (DLAB 1) | divisor latch | stored; the speed has no effect |
| 1 (DLAB 0) | IER | bits 0-3; setting THRE while the transmitter is empty (it always is) raises its interrupt |
| 2 | FCR | FIFO enable, receiver reset, trigger level; changing the enable bit empties the FIFO |
| 3 | LCR | stored; bit 7 is DLAB; framing and break have no effect |
| 4 | MCR | bits 0-4; OUT2 gates the interrupt line; loop-back ties the modem inputs to the outputs |
| 5, 6 | LSR, MSR | nothing (factory test) |
| 7 | SCR | stored |

DCD, DSR and CTS are asserted. A byte that finds the FIFO full is lost and sets the overrun bit. The character time-out
comes at once instead of after four characters, so a trigger level only decides which of the two causes is shown.
"""
from typing import Annotated, Final

from hypervisor.lang import struct, u32, u8

VERSION: Final = 1
FIFO_BYTES: Final = 16

IER_RX: Final = 0x01
IER_THRE: Final = 0x02
IER_LINE: Final = 0x04
IER_MODEM: Final = 0x08
IIR_NONE: Final = 0x01
IIR_MODEM: Final = 0x00
IIR_THRE: Final = 0x02
IIR_RX: Final = 0x04
IIR_LINE: Final = 0x06
IIR_TIMEOUT: Final = 0x0C
IIR_FIFO: Final = 0xC0
FCR_ENABLE: Final = 0x01
FCR_RESET_RX: Final = 0x02
LCR_DLAB: Final = 0x80
MCR_OUT2: Final = 0x08
MCR_LOOP: Final = 0x10
LSR_DR: Final = 0x01
LSR_OVERRUN: Final = 0x02
LSR_IDLE: Final = 0x60  # THRE and TEMT
MSR_LINES: Final = 0xB0  # CTS, DSR, DCD
TRIGGER: Final[Annotated[list[u8], 4]] = [1, 4, 8, 14]
NOTHING_SENT: Final = 0x100


@struct
class Uart:
    """State of one UART."""

    version: u32
    ier: u8
    fcr: u8
    lcr: u8
    mcr: u8
    scr: u8
    divisor_low: u8
    divisor_high: u8
    msr_lines: u8  # bits 7-4 of MSR as last seen
    msr_delta: u8  # bits 3-0
    overrun: bool
    thre_pending: bool  # the THRE interrupt has been raised and not been taken away by reading IIR or writing THR
    head: u8  # of the next byte to read
    count: u8
    fifo: Annotated[list[u8], 16]


def reset(uart: Uart) -> None:
    """Master reset."""
    uart.version = VERSION
    uart.msr_lines = MSR_LINES


def capacity(uart: Uart) -> u32:
    """Bytes that the receiver holds: 16, or 1 with FIFOs off."""
    return FIFO_BYTES if uart.fcr & FCR_ENABLE else 1


def room(uart: Uart) -> u32:
    """Bytes that can be received now without loss; none in loop-back."""
    if uart.mcr & MCR_LOOP:
        return 0
    return u32(capacity(uart) - uart.count) if uart.count < capacity(uart) else 0


def receive(uart: Uart, value: u8) -> None:
    """A byte arrives on the line."""
    if uart.count >= capacity(uart):
        uart.overrun = True
        return
    uart.fifo[(uart.head + uart.count) & 15] = value
    uart.count = u8(uart.count + 1)


def empty_receiver(uart: Uart) -> None:
    """Drop what was received."""
    uart.head = 0
    uart.count = 0


def cause(uart: Uart) -> u8:
    """The interrupt of highest priority, as IIR bits 3-0 name it."""
    if uart.ier & IER_LINE and uart.overrun:
        return IIR_LINE
    if uart.ier & IER_RX and uart.count > 0:
        if uart.fcr & FCR_ENABLE and uart.count < TRIGGER[uart.fcr >> 6 & 3]:
            return IIR_TIMEOUT
        return IIR_RX
    if uart.ier & IER_THRE and uart.thre_pending:
        return IIR_THRE
    if uart.ier & IER_MODEM and uart.msr_delta:
        return IIR_MODEM
    return IIR_NONE


def line(uart: Uart) -> bool:
    """The level of the interrupt line (OUT2 gates it in a PC; loop-back holds it off)."""
    return uart.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2 and cause(uart) != IIR_NONE


def modem_lines(uart: Uart) -> u8:
    """MSR bits 7-4: in loop-back OUT2, OUT1, DTR, RTS come back as DCD, RI, DSR, CTS."""
    if not uart.mcr & MCR_LOOP:
        return MSR_LINES
    mcr = uart.mcr
    return u8((mcr & 0x08) << 4 | (mcr & 0x04) << 4 | (mcr & 0x01) << 5 | (mcr & 0x02) << 3)


def update_modem(uart: Uart) -> None:
    """Note changes of the modem lines; ring (bit 6) counts only when it goes away."""
    now: u8 = modem_lines(uart)
    changed = (now ^ uart.msr_lines) & 0xB0
    if uart.msr_lines & 0x40 and not now & 0x40:
        changed = changed | 0x40
    uart.msr_delta = u8(uart.msr_delta | changed >> 4)
    uart.msr_lines = now


def write_fcr(uart: Uart, value: u8) -> None:
    """FIFO control."""
    if (value ^ uart.fcr) & FCR_ENABLE or value & FCR_RESET_RX:
        empty_receiver(uart)
    uart.fcr = value & 0xC9 if value & FCR_ENABLE else 0


def write_ier(uart: Uart, value: u8) -> None:
    """Interrupt enable."""
    if value & IER_THRE and not uart.ier & IER_THRE:
        uart.thre_pending = True
    uart.ier = value & 0x0F


def transmit(uart: Uart, value: u8) -> u32:
    """THR: the byte that leaves on the line, or NOTHING_SENT."""
    uart.thre_pending = True
    if uart.mcr & MCR_LOOP:
        receive(uart, value)
        return NOTHING_SENT
    return value


def write(uart: Uart, offset: u32, value: u8) -> u32:
    """Write register 0..7; returns the byte that was sent on the line, or NOTHING_SENT."""
    match offset:
        case 0:
            if not uart.lcr & LCR_DLAB:
                return transmit(uart, value)
            uart.divisor_low = value
        case 1:
            if uart.lcr & LCR_DLAB:
                uart.divisor_high = value
            else:
                write_ier(uart, value)
        case 2:
            write_fcr(uart, value)
        case 3:
            uart.lcr = value
        case 4:
            uart.mcr = value & 0x1F
            update_modem(uart)
        case 7:
            uart.scr = value
        case _:
            pass
    return NOTHING_SENT


def read_data(uart: Uart) -> u8:
    """RBR; 0 when nothing was received."""
    if uart.count == 0:
        return 0
    value: u8 = uart.fifo[uart.head & 15]
    uart.head = u8((uart.head + 1) & 15)
    uart.count = u8(uart.count - 1)
    return value


def read_iir(uart: Uart) -> u8:
    """IIR; reading it takes a THRE interrupt away."""
    why = cause(uart)
    if why == IIR_THRE:
        uart.thre_pending = False
    return u8(why | (IIR_FIFO if uart.fcr & FCR_ENABLE else 0))


def read_lsr(uart: Uart) -> u8:
    """LSR; reading it clears the overrun bit."""
    value: u32 = LSR_IDLE
    if uart.count > 0:
        value = value | LSR_DR
    if uart.overrun:
        value = value | LSR_OVERRUN
        uart.overrun = False
    return u8(value)


def read_msr(uart: Uart) -> u8:
    """MSR; reading it clears the delta bits."""
    value: u8 = uart.msr_lines | uart.msr_delta
    uart.msr_delta = 0
    return value


def read(uart: Uart, offset: u32) -> u8:
    """Read register 0..7."""
    match offset:
        case 0:
            return uart.divisor_low if uart.lcr & LCR_DLAB else read_data(uart)
        case 1:
            return uart.divisor_high if uart.lcr & LCR_DLAB else uart.ier
        case 2:
            return read_iir(uart)
        case 3:
            return uart.lcr
        case 4:
            return uart.mcr
        case 5:
            return read_lsr(uart)
        case 6:
            return read_msr(uart)
        case _:
            return uart.scr
