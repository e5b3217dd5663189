"""The TSC's rate, measured against the PIT (i8254 channel 2, 1.193182 MHz), and the local APIC timer's with it.

Both ends of the interval are read several times between two readings of the TSC, and the tightest pair counts: under an
emulator, or another hypervisor, the CPU may be taken away for milliseconds between any two instructions. CPUID leaves 15H
and 16H are not used: emulators claim what they do not do.
"""
from typing import Final

from hypervisor.arch_x86 import lapic
from hypervisor.arch_x86.intrinsics import inb, outb, pause, rdtsc
from hypervisor.lang import struct, u8, u16, u32, u64

PIT_CHANNEL_2: Final = 0x42
PIT_COMMAND: Final = 0x43
PIT_CHANNEL_2_MODE_0: Final = 0xB0  # low byte, then high byte; count down once
PIT_LATCH_CHANNEL_2: Final = 0x80
PORT_61: Final = 0x61
PORT_61_GATE_2: Final = 0x01
PORT_61_SPEAKER: Final = 0x02
PIT_HZ: Final = 1_193_182

COUNTS: Final = 11932  # 10 ms
HIGHEST_COUNT: Final = 0xFFF0  # a port that nobody answers reads 0xFFFF
READINGS: Final = 16
WIDEST: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF
LONGEST_WAIT: Final = 1_000_000  # reads of the PIT before it is held to be dead


@struct
class Reading:
    """One moment by three clocks."""

    count: u64  # of the PIT, downwards
    tsc: u64
    apic: u64
    width: u64  # TSC ticks that the reading took: its error


@struct
class Rates:
    """What was measured."""

    tsc_khz: u64  # 0: there is no working PIT
    apic_khz: u64


rates: Final = Rates()


def measure() -> None:
    """Fill `rates`; takes 10 ms. The local APIC timer must not be in use."""
    first = Reading()
    last = Reading()
    speaker = inb(PORT_61) & ~u32(PORT_61_SPEAKER | PORT_61_GATE_2)
    outb(PORT_61, u8(speaker))
    outb(PIT_COMMAND, PIT_CHANNEL_2_MODE_0)
    outb(PIT_CHANNEL_2, 0xFF)
    outb(PIT_CHANNEL_2, 0xFF)
    outb(PORT_61, u8(speaker | PORT_61_GATE_2))
    lapic.start_counting()
    if _wait_below(HIGHEST_COUNT) and _read_tightly(first) and _wait_below(first.count - COUNTS) and _read_tightly(last):
        elapsed: u64 = first.count - last.count
        rates.tsc_khz = _khz(last.tsc - first.tsc, elapsed)
        rates.apic_khz = _khz(last.apic - first.apic, elapsed)
    outb(PORT_61, u8(speaker))


def _khz(ticks: u64, elapsed: u64) -> u64:
    """The rate, in kHz and rounded, of a clock that made `ticks` while the PIT made `elapsed` counts."""
    return (ticks * PIT_HZ + elapsed * 500) // (elapsed * 1000)


def _read_tightly(best: Reading) -> bool:
    """The tightest of some readings, each of a count that has just changed; False: the PIT does not move."""
    best.width = WIDEST
    for _ in range(READINGS):
        before = _count()
        start = rdtsc()
        count = _count()
        tries: u32 = 0
        while count == before:
            tries += 1
            if tries == LONGEST_WAIT:
                return False
            pause()
            start = rdtsc()
            count = _count()
        end = rdtsc()
        if end - start < best.width:
            best.width = end - start
            best.count = count
            best.tsc = start
            best.apic = lapic.counted()
    return True


def _wait_below(target: u64) -> bool:
    """Wait until the PIT has counted down to `target`; False: it does not move, or is not there."""
    for _ in range(LONGEST_WAIT):
        if _count() <= target:
            return True
        pause()
    return False


def _count() -> u16:
    outb(PIT_COMMAND, PIT_LATCH_CHANNEL_2)
    low = inb(PIT_CHANNEL_2)
    return u16(inb(PIT_CHANNEL_2) << 8 | low)
