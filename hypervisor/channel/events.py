"""What happens to VMs, kept for the host: the latest EVENTS of them, each with its number."""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor import clock
from hypervisor.abi_channel import EventKind, EventRecord
from hypervisor.channel.state import link
from hypervisor.cpu import owe
from hypervisor.lang import char_at, clear, struct, u32, u64
from hypervisor.model import NAME_BYTES, WORK_CHANNEL, Vm

EVENTS: Final = 128  # power of two
TEXT_BYTES: Final = 64


@struct
class Kept:
    """One event and whose it is."""

    handle: u32
    record: EventRecord


@struct
class Ring:
    """Event n stands in events[n % EVENTS] until event n + EVENTS comes."""

    written: u64  # events so far
    events: Annotated[list[Kept], EVENTS]


ring: Final = Ring()


def handle_of(vm: Vm) -> u32:
    """What names this VM on the channel, and no other one ever."""
    return vm.generation << 16 | vm.id


def happened(vm: Vm, kind: EventKind, code: u32, text: str) -> None:
    """An event of a VM."""
    kept = keep(handle_of(vm), kind, code, text)
    for i in range(NAME_BYTES):
        kept.record.name[i] = vm.name[i]


def machine(kind: EventKind, code: u32) -> None:
    """An event of the machine."""
    keep(0, kind, code, "")


def keep(handle: u32, kind: EventKind, code: u32, text: str) -> Kept:
    """Enter one; its name is empty."""
    kept = ring.events[ring.written % EVENTS]
    clear(kept)
    kept.handle = handle
    kept.record.number = ring.written
    kept.record.us = clock.since_boot_us()
    kept.record.kind = kind
    kept.record.code = code
    length: u32 = 0
    while length < TEXT_BYTES - 1 and char_at(text, length) != 0:
        kept.record.text[length] = char_at(text, length)
        length += 1
    ring.written += 1
    if link.connected:
        owe(WORK_CHANNEL)
    return kept


def first_kept() -> u64:
    """The number of the oldest event that is still there."""
    return ring.written - EVENTS if ring.written > EVENTS else 0


def get(number: u64) -> Kept:
    """Event `number`, first_kept() .. ring.written - 1."""
    return ring.events[number % EVENTS]
