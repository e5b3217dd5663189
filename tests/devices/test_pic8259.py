"""The interrupt controllers: priorities, nesting, cascade, spurious requests."""
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.devices import pic8259
from hypervisor.devices.pic8259 import Pic

IRQS = st.integers(0, 15).filter(lambda irq: irq != pic8259.CASCADE)
# Priority of the pair in a PC, highest first.
ORDER = [0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 3, 4, 5, 6, 7]


def started(auto_eoi: bool = False) -> Pic:
    """As Linux initialises it: vectors 30 and 38, all unmasked."""
    pic = Pic()
    pic8259.reset(pic)
    for chip in range(2):
        pic8259.write(pic, chip, False, 0x11)
        pic8259.write(pic, chip, True, 0x30 + 8 * chip)
        pic8259.write(pic, chip, True, 4 if chip == 0 else 2)
        pic8259.write(pic, chip, True, 3 if auto_eoi else 1)
        pic8259.write(pic, chip, True, 0)
    return pic


def end(pic: Pic, irq: int) -> None:
    """Specific EOI, as Linux gives it: to the second chip and to the cascade input."""
    if irq >= 8:
        pic8259.write(pic, 1, False, 0x60 | irq & 7)
        pic8259.write(pic, 0, False, 0x60 | pic8259.CASCADE)
    else:
        pic8259.write(pic, 0, False, 0x60 | irq)


@given(st.sets(IRQS, min_size=1), st.booleans())
def test_requests_come_in_order_of_priority(irqs: set[int], auto_eoi: bool) -> None:
    pic = started(auto_eoi)
    for irq in irqs:
        pic8259.pulse(pic, irq)
    for irq in sorted(irqs, key=ORDER.index):
        assert pic8259.pending(pic)
        assert pic8259.acknowledge(pic) == 0x30 + irq
        if not auto_eoi:
            end(pic, irq)
    assert not pic8259.pending(pic)


@given(IRQS, IRQS)
def test_only_a_more_urgent_request_interrupts_a_service(first: int, second: int) -> None:
    pic = started()
    pic8259.pulse(pic, first)
    assert pic8259.acknowledge(pic) == 0x30 + first
    pic8259.pulse(pic, second)
    # Without special fully nested mode the second chip's inputs do not interrupt each other: its cascade input is in service.
    if first >= 8 and second >= 8:
        assert not pic8259.pending(pic)
    else:
        assert pic8259.pending(pic) == (ORDER.index(second) < ORDER.index(first))
    end(pic, first)
    assert pic8259.pending(pic)
    assert pic8259.acknowledge(pic) == 0x30 + second


@given(st.sets(IRQS), st.integers(0, 255), st.integers(0, 255))
def test_a_masked_request_waits(irqs: set[int], mask0: int, mask1: int) -> None:
    pic = started()
    pic8259.write(pic, 0, True, mask0 & ~(1 << pic8259.CASCADE))
    pic8259.write(pic, 1, True, mask1)
    for irq in irqs:
        pic8259.pulse(pic, irq)
    masked = (mask0 & ~4) | mask1 << 8
    assert pic8259.pending(pic) == any(not masked >> irq & 1 for irq in irqs)
    pic8259.write(pic, 0, True, 0)
    pic8259.write(pic, 1, True, 0)
    assert pic8259.pending(pic) == bool(irqs)


def test_a_request_taken_back_is_spurious() -> None:
    pic = started()
    pic8259.write_level(pic, 0, 0x10)
    pic8259.write_level(pic, 1, 0x02)
    pic8259.set_line(pic, 4, True)
    assert pic8259.pending(pic)
    pic8259.set_line(pic, 4, False)
    assert not pic8259.pending(pic)
    assert pic8259.acknowledge(pic) == 0x37
    assert pic8259.read(pic, 0, False) == 0  # nothing went into service
    pic8259.write(pic, 0, False, 0x0B)
    assert pic8259.read(pic, 0, False) == 0


def test_a_level_that_stays_asks_again_after_its_end() -> None:
    pic = started()
    pic8259.write_level(pic, 1, 0x02)
    assert pic8259.read_level(pic, 1) == 0x02
    pic8259.set_line(pic, 9, True)
    assert pic8259.acknowledge(pic) == 0x39
    assert not pic8259.pending(pic)
    end(pic, 9)
    assert pic8259.acknowledge(pic) == 0x39
    pic8259.set_line(pic, 9, False)
    end(pic, 9)
    assert not pic8259.pending(pic)


def test_an_edge_asks_once() -> None:
    pic = started()
    pic8259.set_line(pic, 4, True)
    pic8259.set_line(pic, 4, True)
    assert pic8259.acknowledge(pic) == 0x34
    end(pic, 4)
    pic8259.set_line(pic, 4, True)
    assert not pic8259.pending(pic)
    pic8259.pulse(pic, 4)
    assert pic8259.pending(pic)


def test_rotation_makes_the_served_input_the_lowest() -> None:
    pic = started()
    pic8259.pulse(pic, 3)
    assert pic8259.acknowledge(pic) == 0x33
    pic8259.write(pic, 0, False, 0xA0)  # rotate on non-specific EOI
    for irq in (1, 5):
        pic8259.pulse(pic, irq)
    assert pic8259.acknowledge(pic) == 0x35


def test_special_mask_mode_lets_less_urgent_ones_through() -> None:
    pic = started()
    pic8259.pulse(pic, 1)
    assert pic8259.acknowledge(pic) == 0x31
    pic8259.pulse(pic, 5)
    assert not pic8259.pending(pic)
    pic8259.write(pic, 0, True, 0x02)
    pic8259.write(pic, 0, False, 0x68)
    assert pic8259.acknowledge(pic) == 0x35


def test_polling_acknowledges() -> None:
    pic = started()
    pic8259.pulse(pic, 6)
    pic8259.write(pic, 0, False, 0x0C)
    assert pic8259.read(pic, 0, False) == 0x86
    assert not pic8259.pending(pic)
    pic8259.write(pic, 0, False, 0x0C)
    assert pic8259.read(pic, 0, False) == 0


def test_elcr_keeps_the_timers_inputs_edge_triggered() -> None:
    pic = started()
    pic8259.write_level(pic, 0, 0xFF)
    pic8259.write_level(pic, 1, 0xFF)
    assert (pic8259.read_level(pic, 0), pic8259.read_level(pic, 1)) == (0xF8, 0xDE)
