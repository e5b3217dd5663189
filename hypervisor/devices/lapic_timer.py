"""The local APIC's timer: one-shot and periodic from a bus clock of 1 GHz, or a deadline of the TSC.

Source: Intel SDM vol. 3A, 11.5.4. One tick of the bus clock is one nanosecond of guest time.

| register | a guest writes | what happens |
|---|---|---|
| 320 LVT timer | vector, mask, mode (18-17: one-shot, periodic, TSC deadline, 3: as one-shot) | to or from TSC deadline: the timer stops; else it goes on |
| 380 initial count | 32 bits | counting starts from it, 0 stops; ignored in TSC-deadline mode |
| 3E0 divide | bits 3, 1, 0 | 1 to 128; a running count goes on from where it is |
| MSR 6E0 TSC_DEADLINE | 64 bits | in TSC-deadline mode: interrupts when the guest's TSC reaches it, 0 stops; else ignored |

hypervisor/apic_bus.py keeps guests' timers 200 microseconds apart.
"""
from typing import Final

from hypervisor.devices import lapic
from hypervisor.devices.lapic import Lapic
from hypervisor.devices.rate import NEVER
from hypervisor.lang import u32, u64

MODE_PERIODIC: Final = 1
MODE_TSC_DEADLINE: Final = 2


def mode(apic: Lapic) -> u32:
    """0 one-shot, MODE_PERIODIC, MODE_TSC_DEADLINE."""
    return apic.lvt[lapic.LVT_AT_TIMER] >> 17 & 3


def shift_of(divide: u32) -> u32:
    """The divide configuration register as a power of two: 000 is 2, 110 is 128, 111 is 1."""
    code: u32 = (divide & 3) | (divide >> 1 & 4)
    return code + 1 & 7


def current_count(apic: Lapic, now: u64) -> u64:
    """TIMER_CURRENT at guest time `now` (ns)."""
    if not apic.running:
        return 0
    gone: u64 = (now - apic.started_at if now > apic.started_at else 0) >> (shift_of(apic.divide) & 7)
    if gone < apic.first_count:
        return apic.first_count - gone
    if mode(apic) != MODE_PERIODIC:
        return 0
    return apic.initial_count - (gone - apic.first_count) % apic.initial_count


def next_deadline(apic: Lapic) -> u64:
    """Guest time (ns) of the next expiry of a count; NEVER. A TSC deadline is apic_bus.py's to watch."""
    if not apic.running:
        return NEVER
    return apic.started_at + (apic.first_count << (shift_of(apic.divide) & 7))


def start(apic: Lapic, count: u32, now: u64) -> None:
    """Initial count is written."""
    if mode(apic) == MODE_TSC_DEADLINE:
        return
    apic.initial_count = count
    apic.first_count = count
    apic.started_at = now
    apic.running = count != 0
    apic.effects = apic.effects | lapic.EFFECT_TIMER


def set_divide(apic: Lapic, value: u32, now: u64) -> None:
    """Divide configuration is written."""
    apic.first_count = current_count(apic, now)
    apic.running = apic.first_count != 0
    apic.started_at = now
    apic.divide = value & 0xB
    apic.effects = apic.effects | lapic.EFFECT_TIMER


def mode_changed(apic: Lapic, before: u32, now: u64) -> None:
    """The LVT entry was written; `before`: its mode until then."""
    after = mode(apic)
    if after == before:
        return
    if after == MODE_TSC_DEADLINE or before == MODE_TSC_DEADLINE:
        apic.running = False
        apic.initial_count = 0
        apic.tsc_deadline = 0
    elif before == MODE_PERIODIC and apic.running and now >= next_deadline(apic):
        apic.running = False
    apic.effects = apic.effects | lapic.EFFECT_TIMER


def set_tsc_deadline(apic: Lapic, value: u64) -> None:
    """MSR TSC_DEADLINE is written."""
    if mode(apic) == MODE_TSC_DEADLINE:
        apic.tsc_deadline = value
        apic.effects = apic.effects | lapic.EFFECT_TIMER


def fire(apic: Lapic) -> None:
    """The interrupt of an expiry."""
    if lapic.raise_local(apic, lapic.LVT_AT_TIMER):
        apic.timer_interrupts += 1


def expire(apic: Lapic, now: u64) -> bool:
    """Let a count that has run out by `now` interrupt; several periods that were slept over count as one. Whether it has."""
    due = next_deadline(apic)
    if due > now:
        return False
    if mode(apic) == MODE_PERIODIC:
        period: u64 = u64(apic.initial_count) << (shift_of(apic.divide) & 7)
        apic.started_at = due + (now - due) // period * period
        apic.first_count = apic.initial_count
    else:
        apic.running = False
    fire(apic)
    return True


def expire_tsc(apic: Lapic, tsc: u64) -> bool:
    """Let a TSC deadline that has come by `tsc` (the guest's) interrupt. Whether it has."""
    if apic.tsc_deadline == 0 or tsc < apic.tsc_deadline:
        return False
    apic.tsc_deadline = 0
    fire(apic)
    return True
