"""Time of day, read once from the machine's real-time clock (Motorola MC146818A; century byte 32h as PC firmware keeps it)."""
from typing import Final

from hypervisor.arch_x86.intrinsics import inb, outb
from hypervisor.devices.calendar import Calendar, seconds_of
from hypervisor.lang import u8, u32, u64

INDEX_PORT: Final = 0x70
DATA_PORT: Final = 0x71
REGISTER_A: Final = 0x0A
REGISTER_B: Final = 0x0B
UPDATE_IN_PROGRESS: Final = 0x80
B_BINARY: Final = 0x04
B_24_HOURS: Final = 0x02
MOST_READS: Final = 200_000  # a port read takes about 1 us; an update at most 2 ms


def unix_seconds() -> u64:
    """Seconds since 1970 by the machine's clock, to the second; 0 if it shows a date before or never settles."""
    first = Calendar()
    second = Calendar()
    for _ in range(4):
        if not settled():
            return 0
        read(first)
        if not settled():
            return 0
        read(second)
        if seconds_of(first) == seconds_of(second):
            break
    return seconds_of(second)


def settled() -> bool:
    """Wait until no update is in progress, within a bound."""
    for _ in range(MOST_READS):
        if cmos(REGISTER_A) & UPDATE_IN_PROGRESS == 0:
            return True
    return False


def cmos(index: u8) -> u8:
    """One byte of the clock; the NMI mask in bit 7 of the index stays off."""
    outb(INDEX_PORT, index)
    return inb(DATA_PORT)


def number(value: u32, mode: u32) -> u32:
    """A byte in the clock's data mode."""
    return value if mode & B_BINARY else u32((value >> 4) * 10 + (value & 15))


def read(date: Calendar) -> None:
    """All of it, not at one moment."""
    mode: u32 = cmos(REGISTER_B)
    date.second = number(cmos(0x00), mode)
    date.minute = number(cmos(0x02), mode)
    hour: u32 = cmos(0x04)
    date.hour = number(hour, mode)
    if mode & B_24_HOURS == 0:
        date.hour = u32(number(hour & 0x7F, mode) % 12 + (12 if hour & 0x80 else 0))
    date.day = number(cmos(0x07), mode)
    date.month = number(cmos(0x08), mode)
    century = number(cmos(0x32), mode)
    year = number(cmos(0x09), mode)
    date.year = u32((century if 19 <= century <= 21 else 20) * 100 + year)
