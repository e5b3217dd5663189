"""Limits of a virtual disk: requests and bytes a second. What a disk has not used for BURST_NS it may use at once."""
from typing import Final

from hypervisor import clock
from hypervisor.block.model import Limit, VirtualDisk
from hypervisor.lang import u32, u64

BURST_NS: Final[u64] = 50_000_000


def ready_at(disk: VirtualDisk) -> u64:
    """Host TSC from which the disk may start another request; in the past: now."""
    return max(_ready_at(disk.requests_limit), _ready_at(disk.bytes_limit))


def take(disk: VirtualDisk, size: u64, requests: u32, now: u64) -> None:
    """A transfer of `size` bytes for so many requests starts."""
    _take(disk.requests_limit, requests, now)
    _take(disk.bytes_limit, size, now)


def _ready_at(limit: Limit) -> u64:
    burst = clock.ticks_of(BURST_NS)
    return limit.due - burst if limit.rate != 0 and limit.due > burst else 0


def _take(limit: Limit, units: u64, now: u64) -> None:
    if limit.rate != 0:
        limit.due = max(limit.due, now) + units * clock.tsc_khz() * 1000 // limit.rate
