"""The real-time clock against Python's calendar."""
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from hypervisor.devices import rtc_mc146818 as rtc
from hypervisor.devices.rate import NEVER, NS_PER_SECOND
from hypervisor.devices.rtc_mc146818 import Rtc

NOON = 946728000  # 2000-01-01T12:00:00
MODES = st.sampled_from([0x00, 0x02, 0x04, 0x06])
SECONDS = st.integers(0, 4102444799)  # to 2099


def fresh(seconds: int, mode: int = 0x02) -> Rtc:
    made = Rtc()
    rtc.reset(made, seconds, 0)
    put(made, rtc.REGISTER_B, mode, 0)
    return made


def put(r: Rtc, index: int, value: int, now: int) -> None:
    rtc.write_index(r, index)
    rtc.write_data(r, value, now)


def get(r: Rtc, index: int, now: int) -> int:
    rtc.write_index(r, index)
    return rtc.read_data(r, now)


def shown(r: Rtc, now: int, mode: int) -> datetime:
    """The date that a driver makes of the registers."""
    def number(value: int) -> int:
        return value if mode & 4 else value // 16 * 10 + value % 16
    hour = get(r, 4, now)
    if mode & 2:
        hour = number(hour)
    else:
        hour = number(hour & 0x7F) % 12 + (12 if hour & 0x80 else 0)
    year = number(get(r, 0x32, now)) * 100 + number(get(r, 9, now))
    return datetime(year, number(get(r, 8, now)), number(get(r, 7, now)), hour, number(get(r, 2, now)),
                    number(get(r, 0, now)), tzinfo=timezone.utc)


@given(SECONDS, st.integers(0, 10**18), MODES)
def test_it_shows_the_time(start: int, now: int, mode: int) -> None:
    r = fresh(start, mode)
    wanted = datetime.fromtimestamp(start, timezone.utc) + timedelta(seconds=now // NS_PER_SECOND)
    assert shown(r, now, mode) == wanted
    assert get(r, rtc.WEEKDAY, now) == wanted.isoweekday() % 7 + 1


@given(SECONDS, SECONDS, st.integers(0, 10**9), MODES)
def test_it_can_be_set(start: int, target: int, gone: int, mode: int) -> None:
    target += gone  # a clock cannot be set before 1970 at guest time 0
    now = gone * NS_PER_SECOND
    r = fresh(start, mode)
    date = datetime.fromtimestamp(target, timezone.utc)

    def byte(value: int) -> int:
        return value if mode & 4 else value // 10 << 4 | value % 10
    hour = byte(date.hour) if mode & 2 else byte(date.hour % 12 or 12) | (0x80 if date.hour >= 12 else 0)
    put(r, rtc.REGISTER_B, mode | rtc.B_SET, now)
    for index, value in ((0x32, byte(date.year // 100)), (9, byte(date.year % 100)), (8, byte(date.month)), (7, byte(date.day)),
                         (4, hour), (2, byte(date.minute)), (0, byte(date.second))):
        put(r, index, value, now)
    put(r, rtc.REGISTER_B, mode, now)
    assert shown(r, now, mode) == date
    assert shown(r, now + 90 * NS_PER_SECOND, mode) == date + timedelta(seconds=90)


ALARMS = st.one_of(st.integers(0, 59), st.just(0xFF))


@given(st.integers(NOON, NOON + 86399), st.one_of(st.integers(0, 23), st.just(0xC0)), ALARMS, ALARMS)
def test_the_alarm_comes_at_the_next_match(start: int, hour: int, minute: int, second: int) -> None:
    r = fresh(start, 0x06)
    for index, value in ((rtc.HOURS_ALARM, hour), (rtc.MINUTES_ALARM, minute), (rtc.SECONDS_ALARM, second)):
        put(r, index, value, 0)
    put(r, rtc.REGISTER_B, 0x26, 0)

    def matches(moment: int) -> bool:
        of_day = moment % 86400
        parts = ((hour, of_day // 3600), (minute, of_day // 60 % 60), (second, of_day % 60))
        return all(wanted >= 0xC0 or wanted == is_now for wanted, is_now in parts)
    wanted = next(moment for moment in range(start + 1, start + 86402) if matches(moment))
    due = rtc.next_deadline(r)
    assert due == (wanted - start) * NS_PER_SECOND
    rtc.advance(r, due - 1)
    assert not rtc.line(r)
    rtc.advance(r, due)
    assert rtc.line(r)
    assert get(r, rtc.REGISTER_C, due) & 0xA0 == 0xA0
    assert not rtc.line(r)


def test_an_alarm_that_matches_no_time_never_comes() -> None:
    r = fresh(NOON, 0x06)
    put(r, rtc.SECONDS_ALARM, 77, 0)
    put(r, rtc.REGISTER_B, 0x26, 0)
    assert rtc.next_deadline(r) == NEVER


def test_update_interrupt_each_second() -> None:
    r = fresh(NOON)
    put(r, rtc.REGISTER_B, 0x12, 0)
    for second in range(1, 4):
        due = rtc.next_deadline(r)
        assert due == second * NS_PER_SECOND
        rtc.advance(r, due)
        assert rtc.line(r) and rtc.next_deadline(r) == NEVER
        assert get(r, rtc.REGISTER_C, due) == rtc.C_IRQF | rtc.C_UF | rtc.C_PF


def test_periodic_interrupt_keeps_its_rate() -> None:
    r = fresh(NOON)
    put(r, rtc.REGISTER_A, 0x26, 0)  # 1024 Hz
    put(r, rtc.REGISTER_B, 0x42, 0)
    now = count = 0
    while True:
        now = rtc.next_deadline(r)
        if now > 2 * NS_PER_SECOND:
            break
        rtc.advance(r, now)
        count += get(r, rtc.REGISTER_C, now) >> 7
    assert count == 2048


def test_update_in_progress_shows_before_the_second_ends() -> None:
    r = fresh(NOON)
    assert get(r, rtc.REGISTER_A, NS_PER_SECOND - 244_001) & 0x80 == 0
    assert get(r, rtc.REGISTER_A, NS_PER_SECOND - 244_000) & 0x80 == 0x80
    assert get(r, rtc.REGISTER_A, NS_PER_SECOND) & 0x80 == 0


def test_memory_is_memory() -> None:
    r = fresh(NOON)
    for index in set(range(0x0E, 0x80)) - {0x32}:
        put(r, index, index ^ 0x5A, 0)
    for index in set(range(0x0E, 0x80)) - {0x32}:
        assert get(r, index, 0) == index ^ 0x5A
    put(r, rtc.REGISTER_D, 0, 0)
    assert get(r, rtc.REGISTER_D, 0) == 0x80
