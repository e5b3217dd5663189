"""The UART: data in order, causes in order, loop-back, what Linux probes."""
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.devices import uart16550 as uart
from hypervisor.devices.uart16550 import Uart


def fresh(fifo: bool = True) -> Uart:
    made = Uart()
    uart.reset(made)
    if fifo:
        uart.write(made, 2, 0x01)
    return made


@given(st.binary(max_size=40))
def test_bytes_leave_at_once_and_in_order(data: bytes) -> None:
    u = fresh()
    sent = []
    for byte in data:
        assert uart.read(u, 5) & 0x60 == 0x60
        sent.append(uart.write(u, 0, byte))
    assert bytes(sent) == data


@given(st.lists(st.one_of(st.integers(0, 255), st.none()), max_size=80), st.booleans())
def test_received_bytes_wait_in_order_and_overflow_is_told(script: list[int | None], fifo: bool) -> None:
    """Numbers arrive, None reads one: as a queue of limited length would do."""
    u, lost = fresh(fifo), False
    queue: list[int] = []
    limit = 16 if fifo else 1
    for step in script:
        if step is None:
            assert uart.read(u, 0) == (queue.pop(0) if queue else 0)
        elif len(queue) < limit:
            assert uart.room(u) == limit - len(queue)
            uart.receive(u, step)
            queue.append(step)
        else:
            assert uart.room(u) == 0
            uart.receive(u, step)
            lost = True
        lsr = uart.read(u, 5)
        assert bool(lsr & 1) == bool(queue)
        assert bool(lsr & 2) == lost
        lost = False


def test_causes_come_by_priority() -> None:
    u = fresh()
    uart.write(u, 2, 0x81)  # trigger level 8
    uart.write(u, 4, 0x0B)
    uart.write(u, 1, 0x0F)
    for number in range(17):
        uart.receive(u, number)
    assert uart.line(u) and uart.read(u, 2) == 0xC6
    uart.read(u, 5)
    assert uart.read(u, 2) == 0xC4
    for _ in range(9):
        uart.read(u, 0)
    assert uart.read(u, 2) == 0xCC  # fewer than the trigger level: time-out
    for _ in range(7):
        uart.read(u, 0)
    assert uart.read(u, 2) == 0xC2
    assert uart.read(u, 2) == 0xC1  # reading IIR took it away
    assert not uart.line(u)
    uart.write(u, 0, 0x41)
    assert uart.line(u)
    uart.write(u, 4, 0x03)  # without OUT2 the line is off
    assert not uart.line(u)


def test_enabling_thre_raises_it() -> None:
    u = fresh()
    uart.write(u, 4, 0x08)
    uart.write(u, 1, 0x02)
    assert uart.line(u) and uart.read(u, 2) & 0x0F == 0x02
    uart.write(u, 1, 0x00)
    uart.write(u, 1, 0x02)
    assert uart.line(u)


def test_linux_finds_a_16550a() -> None:
    """8250_port.c, autoconfig: scratch, loop-back of the modem lines, FIFO bits of IIR, no EFR behind LCR BF."""
    u = fresh(fifo=False)
    uart.write(u, 1, 0)
    assert uart.read(u, 1) == 0
    uart.write(u, 1, 0x0F)
    assert uart.read(u, 1) == 0x0F
    uart.write(u, 1, 0)
    uart.write(u, 4, 0x1A)  # loop, OUT2, RTS
    assert uart.read(u, 6) & 0xF0 == 0x90
    uart.write(u, 4, 0)
    uart.write(u, 3, 0)
    uart.write(u, 2, 1)
    assert uart.read(u, 2) >> 6 == 3
    for value in (0x00, 0xFF, 0x55):
        uart.write(u, 7, value)
        assert uart.read(u, 7) == value


def test_loop_back_brings_data_home() -> None:
    u = fresh()
    uart.write(u, 4, 0x10)
    assert uart.write(u, 0, 0x5A) == uart.NOTHING_SENT
    assert uart.room(u) == 0
    assert uart.read(u, 5) & 1 and uart.read(u, 0) == 0x5A


def test_divisor_stands_behind_dlab() -> None:
    u = fresh()
    uart.write(u, 3, 0x83)
    assert uart.write(u, 0, 0x12) == uart.NOTHING_SENT
    uart.write(u, 1, 0x34)
    assert (uart.read(u, 0), uart.read(u, 1)) == (0x12, 0x34)
    uart.write(u, 3, 0x03)
    assert uart.read(u, 1) == 0


def test_modem_lines_change_once() -> None:
    u = fresh()
    uart.write(u, 4, 0x18)  # into loop-back: CTS, DSR fall, DCD stays by OUT2
    assert uart.read(u, 6) == 0x83
    assert uart.read(u, 6) == 0x80
