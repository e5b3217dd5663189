"""MC146818 real-time clock with 128 bytes of CMOS memory.

Source: Motorola MC146818A data sheet (ADI1026R1). Century in byte 32h, as PC firmware keeps it.

| index | a guest writes | what happens |
|---|---|---|
| port 70 | bits 6-0 | index of the byte that port 71 reaches; bit 7 (NMI mask) is dropped |
| 00, 02, 04, 06-09, 32 | time of day, date | the clock is set; while B.SET is set, at the moment SET is cleared |
| 01, 03, 05 | alarm | stored; C0h-FFh match any value |
| 0A | A | rate (bits 3-0) and divider (stored; the clock runs whatever it says); UIP cannot be written |
| 0B | B | SET, PIE, AIE, UIE, SQWE, DM, 24/12, DSE; DSE and SQWE have no effect |
| 0C, 0D | C, D | nothing |
| others | any | CMOS memory |

Interrupt 8: periodic (rates 3-15: 8192 Hz down to 2 Hz; 1 and 2 are 256 and 128 Hz), alarm, update ended. Flags appear in C whether
enabled or not; reading C clears them. UIP shows during the last 244 us of a second. The weekday is counted from the date.
"""
from typing import Annotated, Final

from hypervisor.devices.calendar import Calendar, calendar_of, seconds_of
from hypervisor.devices.rate import NEVER, NS_PER_SECOND, ticks_at, time_of
from hypervisor.lang import copy, struct, u32, u64, u8

VERSION: Final = 1
SECONDS: Final = 0x00
SECONDS_ALARM: Final = 0x01
MINUTES: Final = 0x02
MINUTES_ALARM: Final = 0x03
HOURS: Final = 0x04
HOURS_ALARM: Final = 0x05
WEEKDAY: Final = 0x06
DAY: Final = 0x07
MONTH: Final = 0x08
YEAR: Final = 0x09
REGISTER_A: Final = 0x0A
REGISTER_B: Final = 0x0B
REGISTER_C: Final = 0x0C
REGISTER_D: Final = 0x0D
CENTURY: Final = 0x32
A_UIP: Final = 0x80
B_SET: Final = 0x80
B_INTERRUPTS: Final = 0x70  # PIE, AIE, UIE stand where PF, AF, UF stand in C
B_BINARY: Final = 0x04
B_24_HOURS: Final = 0x02
C_IRQF: Final = 0x80
C_PF: Final = 0x40
C_AF: Final = 0x20
C_UF: Final = 0x10
D_VALID: Final = 0x80
PERIODIC_HZ: Final[u64] = 32_768
UIP_NS: Final[u64] = 244_000
SECONDS_PER_DAY: Final[u64] = 86_400


@struct
class Rtc:
    """State of the clock."""

    version: u32
    index: u8
    flags: u8  # PF, AF, UF of register C
    base_seconds: u64  # Unix time at guest time 0
    seen: u64  # guest time (ns) up to which the flags are right
    setting: Calendar  # time of day while B.SET is set
    ram: Annotated[list[u8], 128]


def reset(rtc: Rtc, unix_seconds: u64, now: u64) -> None:
    """Power-on with the battery good; `unix_seconds` is the time of day at guest time 0."""
    rtc.version = VERSION
    rtc.base_seconds = unix_seconds
    rtc.seen = now
    rtc.ram[REGISTER_A] = 0x26
    rtc.ram[REGISTER_B] = B_24_HOURS


def unix_time(rtc: Rtc, now: u64) -> u64:
    """Seconds since 1970 that the clock shows."""
    return rtc.base_seconds + now // NS_PER_SECOND


def encode(rtc: Rtc, value: u32) -> u8:
    """A number below 100 as the data mode of register B wants it."""
    return u8(value) if rtc.ram[REGISTER_B] & B_BINARY else u8(value // 10 << 4 | value % 10)


def decode(rtc: Rtc, value: u8) -> u32:
    """The inverse of encode."""
    return value if rtc.ram[REGISTER_B] & B_BINARY else u32((value >> 4) * 10 + (value & 15))


def encode_hour(rtc: Rtc, hour: u32) -> u8:
    """An hour; in 12-hour mode bit 7 says PM."""
    if rtc.ram[REGISTER_B] & B_24_HOURS:
        return encode(rtc, hour)
    twelve: u32 = u32(hour % 12)
    return u8(encode(rtc, twelve if twelve != 0 else 12) | (0x80 if hour >= 12 else 0))


def decode_hour(rtc: Rtc, value: u8) -> u32:
    """The inverse of encode_hour."""
    if rtc.ram[REGISTER_B] & B_24_HOURS:
        return decode(rtc, value)
    return u32(decode(rtc, value & 0x7F) % 12 + (12 if value & 0x80 else 0))


def is_time(index: u32) -> bool:
    """Whether a byte belongs to time of day or date."""
    return index in (SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY)


def show(rtc: Rtc, date: Calendar, index: u32) -> u8:
    """One byte of time or date."""
    match index:
        case 0x00:
            return encode(rtc, date.second)
        case 0x02:
            return encode(rtc, date.minute)
        case 0x04:
            return encode_hour(rtc, date.hour)
        case 0x06:
            return encode(rtc, u32(date.weekday + 1))
        case 0x07:
            return encode(rtc, date.day)
        case 0x08:
            return encode(rtc, date.month)
        case 0x09:
            return encode(rtc, u32(date.year % 100))
        case _:
            return encode(rtc, u32(date.year // 100 % 100))


def change(rtc: Rtc, date: Calendar, index: u32, value: u8) -> None:
    """Set one byte of time or date; what is out of range counts as the largest value."""
    number = decode(rtc, value)
    match index:
        case 0x00:
            date.second = number if number < 60 else 59
        case 0x02:
            date.minute = number if number < 60 else 59
        case 0x04:
            hour = decode_hour(rtc, value)
            date.hour = hour if hour < 24 else 23
        case 0x07:
            date.day = 1 if number == 0 else (number if number < 32 else 31)
        case 0x08:
            date.month = 1 if number == 0 else (number if number < 13 else 12)
        case 0x09:
            date.year = u32(date.year // 100 * 100 + number % 100)
        case 0x32:
            date.year = u32(number % 100 * 100 + date.year % 100)
        case _:
            pass  # the weekday follows from the date


def set_clock(rtc: Rtc, date: Calendar, now: u64) -> None:
    """Let the clock show `date` at `now`; dates before 1970 count as 1970."""
    seconds = seconds_of(date)
    gone = now // NS_PER_SECOND
    rtc.base_seconds = seconds - gone if seconds > gone else 0


def alarm_field(rtc: Rtc, index: u32, value: u32, hour: bool) -> bool:
    """Whether one alarm byte matches."""
    byte: u8 = rtc.ram[index]
    if byte >= 0xC0:
        return True
    return (decode_hour(rtc, byte) if hour else decode(rtc, byte)) == value


def first_match(rtc: Rtc, index: u32, start: u32, limit: u32) -> u32:
    """The first value in start..limit-1 that an alarm byte matches; `limit` if none."""
    value: u32 = start
    while value < limit and not alarm_field(rtc, index, value, index == HOURS_ALARM):
        value = u32(value + 1)
    return value


def next_alarm(rtc: Rtc, after: u64) -> u64:
    """The first Unix second behind `after` whose time of day matches the alarm; NEVER if none of the day does."""
    start = (after + 1) % SECONDS_PER_DAY
    midnight = after + 1 - start
    first_second = first_match(rtc, SECONDS_ALARM, 0, 60)
    first_minute = first_match(rtc, MINUTES_ALARM, 0, 60)
    if first_second == 60 or first_minute == 60 or first_match(rtc, HOURS_ALARM, 0, 24) == 24:
        return NEVER
    hour: u32 = u32(start // 3600)
    minute: u32 = u32(start // 60 % 60)
    if alarm_field(rtc, HOURS_ALARM, hour, True):
        if alarm_field(rtc, MINUTES_ALARM, minute, False):
            second: u32 = first_match(rtc, SECONDS_ALARM, u32(start % 60), 60)
            if second < 60:
                return midnight + u64(hour) * 3600 + u64(minute) * 60 + second
        minute = first_match(rtc, MINUTES_ALARM, u32(minute + 1), 60)
        if minute < 60:
            return midnight + u64(hour) * 3600 + u64(minute) * 60 + first_second
    hour = first_match(rtc, HOURS_ALARM, u32(hour + 1), 24)
    if hour == 24:
        hour = first_match(rtc, HOURS_ALARM, 0, 24)
        midnight = midnight + SECONDS_PER_DAY
    return midnight + u64(hour) * 3600 + u64(first_minute) * 60 + first_second


def period_ticks(rtc: Rtc) -> u64:
    """Ticks of 32768 Hz between periodic interrupts; 0: off."""
    rate: u32 = rtc.ram[REGISTER_A] & 15
    if rate == 0:
        return 0
    if rate < 3:
        rate = u32(rate + 7)
    return u64(1) << (rate - 1 & 15)


def advance(rtc: Rtc, now: u64) -> None:
    """Bring the flags of register C up to `now`."""
    if now <= rtc.seen:
        return
    before = rtc.seen
    rtc.seen = now
    period = period_ticks(rtc)
    if period != 0 and ticks_at(before, PERIODIC_HZ) // period != ticks_at(now, PERIODIC_HZ) // period:
        rtc.flags = rtc.flags | C_PF
    if rtc.ram[REGISTER_B] & B_SET or before // NS_PER_SECOND == now // NS_PER_SECOND:
        return
    rtc.flags = rtc.flags | C_UF
    if rtc.flags & C_AF == 0 and next_alarm(rtc, unix_time(rtc, before)) <= unix_time(rtc, now):
        rtc.flags = rtc.flags | C_AF


def line(rtc: Rtc) -> bool:
    """The level of interrupt 8."""
    return rtc.flags & rtc.ram[REGISTER_B] & B_INTERRUPTS != 0


def next_deadline(rtc: Rtc) -> u64:
    """Guest time (ns) at which an enabled flag will be set; NEVER if none is enabled or the line is up already."""
    enabled = rtc.ram[REGISTER_B] & B_INTERRUPTS
    best: u64 = NEVER
    if enabled == 0 or line(rtc):
        return best
    period = period_ticks(rtc)
    if enabled & C_PF and period != 0:
        best = time_of((ticks_at(rtc.seen, PERIODIC_HZ) // period + 1) * period, PERIODIC_HZ)
    if rtc.ram[REGISTER_B] & B_SET:
        return best
    due: u64 = NEVER
    if enabled & C_UF:
        due = (rtc.seen // NS_PER_SECOND + 1) * NS_PER_SECOND
    elif enabled & C_AF:
        alarm = next_alarm(rtc, unix_time(rtc, rtc.seen))
        if alarm != NEVER:
            due = (alarm - rtc.base_seconds) * NS_PER_SECOND
    return due if due < best else best


def write_index(rtc: Rtc, value: u8) -> None:
    """Port 70."""
    rtc.index = value & 0x7F


def write_b(rtc: Rtc, value: u8, now: u64) -> None:
    """Register B: taking SET away starts the clock from what was set."""
    was_set = rtc.ram[REGISTER_B] & B_SET
    if value & B_SET and not was_set:
        calendar_of(unix_time(rtc, now), rtc.setting)
    rtc.ram[REGISTER_B] = value if not value & B_SET else u8(value & ~C_UF)
    if was_set and not value & B_SET:
        set_clock(rtc, rtc.setting, now)


def write_data(rtc: Rtc, value: u8, now: u64) -> None:
    """Port 71."""
    index: u32 = rtc.index
    advance(rtc, now)
    if is_time(index):
        if rtc.ram[REGISTER_B] & B_SET:
            change(rtc, rtc.setting, index, value)
            return
        date = Calendar()
        calendar_of(unix_time(rtc, now), date)
        change(rtc, date, index, value)
        set_clock(rtc, date, now)
    elif index == REGISTER_A:
        rtc.ram[index] = value & 0x7F
    elif index == REGISTER_B:
        write_b(rtc, value, now)
    elif index != REGISTER_C and index != REGISTER_D:
        rtc.ram[index] = value


def read_c(rtc: Rtc) -> u8:
    """Register C; reading it clears the flags and so the interrupt."""
    value: u8 = u8(rtc.flags | (C_IRQF if line(rtc) else 0))
    rtc.flags = 0
    return value


def read_data(rtc: Rtc, now: u64) -> u8:
    """Port 71."""
    index: u32 = rtc.index
    advance(rtc, now)
    if is_time(index):
        date = Calendar()
        if rtc.ram[REGISTER_B] & B_SET:
            copy(date, rtc.setting)
        else:
            calendar_of(unix_time(rtc, now), date)
        return show(rtc, date, index)
    if index == REGISTER_A:
        updating = rtc.ram[REGISTER_B] & B_SET == 0 and now % NS_PER_SECOND >= NS_PER_SECOND - UIP_NS
        return u8(rtc.ram[index] | (A_UIP if updating else 0))
    if index == REGISTER_C:
        return read_c(rtc)
    if index == REGISTER_D:
        return D_VALID
    return rtc.ram[index]
