"""The interval timer against what the 8254 data sheet draws."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.devices import pit8254
from hypervisor.devices.pit8254 import HZ, Pit
from hypervisor.devices.rate import NEVER, time_of

COUNTS = st.integers(1, 0x10000)
TICKS = st.integers(0, 1 << 40)


def programmed(mode: int, count: int, tick: int, number: int = 0) -> Pit:
    """A timer whose channel was given a mode and a 16-bit count at `tick`."""
    pit = Pit()
    pit8254.reset(pit, 0)
    now = time_of(tick, HZ)
    pit.seen = tick
    pit8254.write_control(pit, number << 6 | 3 << 4 | mode << 1, now)
    pit8254.write_count(pit, number, count & 0xFF, now)
    pit8254.write_count(pit, number, count >> 8 & 0xFF, now)
    return pit


def read_latched(pit: Pit, tick: int, number: int = 0) -> int:
    now = time_of(tick, HZ)
    pit8254.write_control(pit, number << 6, now)
    return pit8254.read_count(pit, number, now) | pit8254.read_count(pit, number, now) << 8


@given(st.sampled_from([2, 3]), COUNTS, TICKS, st.integers(1, 5))
def test_periodic_modes_raise_one_edge_a_period(mode: int, count: int, start: int, periods: int) -> None:
    pit = programmed(mode, count, start)
    for period in range(1, periods + 1):
        due = time_of(start + period * count, HZ)
        assert pit8254.next_deadline(pit) == due
        assert not pit8254.take_edge(pit, due - 1)
        assert pit8254.take_edge(pit, due)
        assert not pit8254.take_edge(pit, due)


@given(COUNTS, TICKS, st.integers(2, 100))
def test_edges_that_were_slept_over_are_one(count: int, start: int, periods: int) -> None:
    pit = programmed(2, count, start)
    late = time_of(start + periods * count, HZ)
    assert pit8254.take_edge(pit, late)
    assert not pit8254.take_edge(pit, late)
    assert pit8254.next_deadline(pit) == time_of(start + (periods + 1) * count, HZ)


@given(st.sampled_from([(0, 0), (4, 1)]), COUNTS, TICKS)
def test_one_shot_modes_raise_one_edge(mode: tuple[int, int], count: int, start: int) -> None:
    number, extra = mode
    pit = programmed(number, count, start)
    due = time_of(start + count + extra, HZ)
    assert pit8254.next_deadline(pit) == due
    assert not pit8254.take_edge(pit, due - 1)
    assert pit8254.take_edge(pit, due)
    assert pit8254.next_deadline(pit) == NEVER
    assert not pit8254.take_edge(pit, due + 10**12)


@pytest.mark.parametrize("mode", [1, 5])
def test_triggered_modes_wait_for_the_gate(mode: int) -> None:
    pit = programmed(mode, 100, 1000)
    assert pit8254.next_deadline(pit) == NEVER
    pit = programmed(mode, 100, 1000, number=2)
    pit8254.write_port61(pit, 1, time_of(2000, HZ))
    assert pit8254.read_port61(pit, time_of(2050, HZ)) & 0x20 == (0 if mode == 1 else 0x20)
    assert pit8254.read_port61(pit, time_of(2101, HZ)) & 0x20 == 0x20


@given(COUNTS, TICKS, st.integers(0, 1 << 20))
def test_mode_0_counts_down_and_wraps(count: int, start: int, gone: int) -> None:
    pit = programmed(0, count, start)
    assert read_latched(pit, start + gone) == (count - gone) & 0xFFFF


@given(COUNTS, TICKS, st.integers(0, 1 << 20))
def test_mode_2_counts_from_the_reload_value_to_one(count: int, start: int, gone: int) -> None:
    pit = programmed(2, count, start)
    shown = read_latched(pit, start + gone) or 0x10000
    assert 1 <= shown <= count and (count - gone - shown) % count == 0


def test_linux_calibrates_with_channel_2() -> None:
    """quick_pit_calibrate and pit_calibrate_tsc: gate on, mode 0, wait for bit 5 of port 61."""
    pit = Pit()
    pit8254.reset(pit, 0)
    pit8254.write_port61(pit, 0x01, 0)
    pit8254.write_control(pit, 0xB0, 0)
    pit8254.write_count(pit, 2, 0xFF, 0)
    pit8254.write_count(pit, 2, 0xFF, 0)
    assert not pit8254.read_port61(pit, time_of(0xFFFE, HZ)) & 0x20
    assert pit8254.read_port61(pit, time_of(0xFFFF, HZ)) & 0x20


def test_a_low_gate_holds_the_count() -> None:
    pit = programmed(0, 100, 0, number=2)
    assert read_latched(pit, 50, 2) == 100
    pit8254.write_port61(pit, 1, time_of(50, HZ))
    assert read_latched(pit, 80, 2) == 70
    pit8254.write_port61(pit, 0, time_of(80, HZ))
    assert read_latched(pit, 200, 2) == 70
    pit8254.write_port61(pit, 1, time_of(200, HZ))
    assert read_latched(pit, 201, 2) == 69


def test_read_back_gives_status_then_count() -> None:
    pit = programmed(3, 0x1234, 0)
    now = time_of(1, HZ)
    pit8254.write_control(pit, 0xC2, now)  # count and status of channel 0
    assert pit8254.read_count(pit, 0, now) == 0x80 | 3 << 4 | 3 << 1
    assert pit8254.read_count(pit, 0, now) | pit8254.read_count(pit, 0, now) << 8 == 0x1232


def test_a_latched_count_stays_until_read() -> None:
    pit = programmed(2, 1000, 0)
    pit8254.write_control(pit, 0x00, time_of(10, HZ))
    pit8254.write_control(pit, 0x00, time_of(20, HZ))
    later = time_of(500, HZ)
    assert pit8254.read_count(pit, 0, later) | pit8254.read_count(pit, 0, later) << 8 == 990
    assert pit8254.read_count(pit, 0, later) | pit8254.read_count(pit, 0, later) << 8 == 500


def test_single_byte_access_loads_at_once() -> None:
    pit = Pit()
    pit8254.reset(pit, 0)
    pit8254.write_control(pit, 0x14, 0)  # channel 0, low byte, mode 2
    pit8254.write_count(pit, 0, 0x20, 0)
    assert pit8254.next_deadline(pit) == time_of(0x20, HZ)
    pit8254.write_control(pit, 0x24, 0)  # high byte
    pit8254.write_count(pit, 0, 0x20, 0)
    assert pit8254.next_deadline(pit) == time_of(0x2000, HZ)
