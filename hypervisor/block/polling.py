"""Interrupt or look in time: a disk that ends many transfers a look is looked at, any other one interrupts.

An interrupt costs an exit of whoever runs, and so does a look: looking pays where each finds something. A slow disk, however many
transfers it has in flight, is not to wake an idle CPU ten thousand times a second.
"""
from typing import Final

from hypervisor import clock
from hypervisor.block.model import HostDisk
from hypervisor.drivers import driver
from hypervisor.lang import u32, u64
from hypervisor.timers import NEVER

POLL_FROM: Final = 8  # transfers in flight; with fewer, each interrupts
POLL_NS: Final[u64] = 100_000
GAPS: Final = 8  # that the average is taken over, about
GAP_MOST_NS: Final[u64] = 1_000_000_000


def note(host: HostDisk, count: u32, now: u64) -> None:
    """`count` transfers were found to have ended; those that start now have not. Time in which none was in flight does not count."""
    if count != 0:
        gap: u64 = min(silence(host, now), clock.ticks_of(GAP_MOST_NS)) // count
        host.gap = host.gap - host.gap // GAPS + gap // GAPS
    if count != 0 or host.in_flight == 0:
        host.ended_at = now


def silence(host: HostDisk, now: u64) -> u64:
    """TSC ticks since the last end, or since there is something to wait for."""
    return now - min(host.ended_at, now)


def choose(host: HostDisk, now: u64) -> u64:
    """Let it interrupt, or not. Host TSC at which to look for ends."""
    if host.immediate:
        return now if host.in_flight != 0 else NEVER
    polled = host.in_flight >= POLL_FROM and max(host.gap, silence(host, now) // GAPS) <= clock.ticks_of(POLL_NS)
    if polled != host.polled:
        host.polled = polled
        driver.let_interrupt(host, not polled)
        return now  # what ended meanwhile has not interrupted
    return now + clock.ticks_of(POLL_NS) if polled else NEVER
