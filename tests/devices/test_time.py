"""Oscillators, dates and the PV clock against the exact arithmetic of CPython."""
from datetime import datetime, timezone
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from hypervisor.devices import kvm_clock, pit8254, pm_timer, rtc_mc146818
from hypervisor.devices.calendar import Calendar, calendar_of, seconds_of
from hypervisor.devices.rate import NS_PER_SECOND, ticks_at, time_of

RATES = st.sampled_from([pit8254.HZ, pm_timer.HZ, rtc_mc146818.PERIODIC_HZ])
CENTURY_NS = 100 * 366 * 86400 * NS_PER_SECOND
LAST_DATE = 253402300799  # 9999-12-31T23:59:59


@given(st.integers(0, CENTURY_NS), RATES)
def test_ticks_are_exact(now: int, hz: int) -> None:
    assert ticks_at(now, hz) == now * hz // NS_PER_SECOND < 1 << 64


@given(st.integers(0, CENTURY_NS // 1000), RATES)
def test_the_time_of_a_tick_is_its_first_nanosecond(tick: int, hz: int) -> None:
    at = time_of(tick, hz)
    assert ticks_at(at, hz) == tick
    assert at == 0 or ticks_at(at - 1, hz) == tick - 1


@given(st.integers(0, LAST_DATE))
def test_dates_are_those_of_python(seconds: int) -> None:
    date = Calendar()
    calendar_of(seconds, date)
    wanted = datetime.fromtimestamp(seconds, timezone.utc)
    assert (date.year, date.month, date.day, date.hour, date.minute, date.second) == wanted.timetuple()[:6]
    assert date.weekday == wanted.isoweekday() % 7
    assert seconds_of(date) == seconds


def test_dates_before_1970_are_none() -> None:
    date = Calendar()
    date.year, date.month, date.day = 1969, 12, 31
    assert seconds_of(date) == 0


@given(st.integers(1000, 10_000_000), st.integers(0, 1 << 50))
def test_a_guest_gets_the_time_from_the_page(khz: int, tsc: int) -> None:
    info = kvm_clock.TimeInfo()
    kvm_clock.fill_time(info, khz)
    shift = info.tsc_shift - 256 if info.tsc_shift >= 128 else info.tsc_shift
    delta = tsc << shift if shift >= 0 else tsc >> -shift
    shown = info.system_time + (delta * info.tsc_to_system_mul >> 32)
    true = Fraction(tsc * 1_000_000, khz)
    assert abs(shown - true) <= 8 + true / 900_000  # the clock is right to about 1 ppm
    assert info.version % 2 == 0 and info.flags == kvm_clock.TSC_STABLE_BIT
