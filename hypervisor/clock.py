"""Host time: the TSC, and its conversion to nanoseconds. `init` is called once the TSC's rate is known."""
from typing import Final

from hypervisor.arch_x86.intrinsics import mul_shift, rdtsc
from hypervisor.lang import struct, u64

KHZ_PER_GHZ: Final = 1_000_000


@struct
class Clock:
    """The rate, and the two factors as 32.32 fixed-point numbers."""

    khz: u64
    ns_per_tick: u64
    ticks_per_ns: u64
    booted_at: u64


clock: Final = Clock()


def start() -> None:
    """Remember when the machine was booted: first thing in main."""
    clock.booted_at = rdtsc()


def init(khz: u64) -> None:
    """Set the TSC's rate in kHz, 1000 .. 2^32-1 (1 MHz to 4 THz)."""
    assert khz >= 1000 and khz >> 32 == 0
    clock.khz = khz
    clock.ns_per_tick = (KHZ_PER_GHZ << 32) // khz
    clock.ticks_per_ns = (khz << 32) // KHZ_PER_GHZ


def now() -> u64:
    """Host time in TSC ticks."""
    return rdtsc()


def tsc_khz() -> u64:
    """The TSC's rate; 0 before it is measured."""
    return clock.khz


def ns_of(ticks: u64) -> u64:
    """Ticks to nanoseconds, rounded down; wrong by at most 2^-22 of the value at 4 GHz."""
    return mul_shift(ticks, clock.ns_per_tick, 32)


def ticks_of(ns: u64) -> u64:
    """Nanoseconds to ticks, rounded down."""
    return mul_shift(ns, clock.ticks_per_ns, 32)


def since_boot_us() -> u64:
    """Microseconds since main began; 0 before the rate is known."""
    return ns_of(rdtsc() - clock.booted_at) // 1000
