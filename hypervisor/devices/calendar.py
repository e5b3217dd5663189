"""Dates: Unix seconds to the proleptic Gregorian calendar and back.

Days are counted from 1 March of year 0, so that the leap day is the last of a year (E. G. Richards, "Calendars", in
Explanatory Supplement to the Astronomical Almanac, 3rd ed., 15.11).
"""
from typing import Final

from hypervisor.lang import struct, u32, u64

SECONDS_PER_DAY: Final[u64] = 86_400
DAYS_TO_1970: Final[u64] = 719_468  # from 0000-03-01
DAYS_PER_ERA: Final[u64] = 146_097  # 400 years


@struct
class Calendar:
    """A moment, to the second."""

    year: u32
    month: u32  # 1..12
    day: u32  # 1..31
    hour: u32
    minute: u32
    second: u32
    weekday: u32  # 0 Sunday .. 6 Saturday


def calendar_of(seconds: u64, date: Calendar) -> None:
    """Fill `date` from seconds since 1970-01-01T00:00:00Z."""
    of_day = seconds % SECONDS_PER_DAY
    days = seconds // SECONDS_PER_DAY
    date.hour = u32(of_day // 3600)
    date.minute = u32(of_day // 60 % 60)
    date.second = u32(of_day % 60)
    date.weekday = u32((days + 4) % 7)
    days = days + DAYS_TO_1970
    era = days // DAYS_PER_ERA
    of_era = days % DAYS_PER_ERA
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * of_year + 2) // 153  # 0 is March
    date.day = u32(of_year - (153 * month + 2) // 5 + 1)
    date.month = u32(month + 3 if month < 10 else month - 9)
    date.year = u32(era * 400 + year_of_era + (1 if month >= 10 else 0))


def seconds_of(date: Calendar) -> u64:
    """Seconds since 1970 of `date` (its weekday is not looked at); 0 for dates before."""
    if date.year < 1970:
        return 0
    year: u64 = date.year
    if date.month <= 2:
        year = year - 1
    month: u64 = date.month + 9 if date.month <= 2 else date.month - 3
    of_year = (153 * month + 2) // 5 + date.day - 1
    year_of_era = year % 400
    of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + of_year
    days = year // 400 * DAYS_PER_ERA + of_era - DAYS_TO_1970
    return days * SECONDS_PER_DAY + u64(date.hour) * 3600 + u64(date.minute) * 60 + date.second
