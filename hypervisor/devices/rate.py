"""Conversions between guest time and the ticks of a device's oscillator: exact, and never too large for 64 bits.

Guest time is in nanoseconds since the VM started. Tick n of an oscillator of `hz` happens at n / hz seconds, so a
device that keeps only tick numbers neither drifts nor accumulates rounding.
"""
from typing import Final

from hypervisor.lang import u64

NS_PER_SECOND: Final[u64] = 1_000_000_000
NEVER: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF  # a deadline that does not come


def ticks_at(now: u64, hz: u64) -> u64:
    """Ticks that have happened by `now` (ns); hz < 2^32."""
    return now // NS_PER_SECOND * hz + now % NS_PER_SECOND * hz // NS_PER_SECOND


def time_of(tick: u64, hz: u64) -> u64:
    """The first nanosecond at which `tick` has happened: ticks_at(time_of(t)) >= t."""
    return tick // hz * NS_PER_SECOND + (tick % hz * NS_PER_SECOND + hz - 1) // hz
