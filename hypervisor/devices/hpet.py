"""High precision event timers: one counter of 100 MHz, three comparators, the first one periodic.

Source: IA-PC HPET specification 1.0a, 2.3. Page at FED00000; 32-bit and aligned 64-bit accesses.

| register | a guest writes | what happens |
|---|---|---|
| 010 configuration | bit 0 enable, bit 1 legacy replacement | the counter runs; timers 0 and 1 take the place of the 8254 (interrupt 0) and the clock chip (8) |
| 020 interrupt status | bits 2-0 | level-triggered: a 1 clears the bit and its line |
| 0F0 counter | 64 bits | set while it stands still, else ignored |
| 100, 120, 140 timer configuration | type (1), enable (2), periodic (3, timer 0), value set (6, timer 0), 32-bit (8), route (13-9) | stored; a route that the timer does not have is refused |
| 108, 128, 148 comparator | 32 or 64 bits | the next match; periodic: the period too, unless value set asked for the match alone |
| any other | anything | nothing; reads give 0 |

Not done: message-signalled delivery (the capability is clear). Several matches that were slept over count as one.
"""
from typing import Annotated, Final

from hypervisor.devices.rate import NEVER
from hypervisor.lang import clear, struct, u32, u64, wrap_u64

VERSION: Final = 1
BASE: Final[u64] = 0xFED0_0000
BYTES: Final = 0x400
TIMERS: Final = 3
NS_PER_TICK: Final = 10
CAPABILITIES: Final[u64] = 10_000_000 << 32 | 0x4B52 << 16 | 1 << 15 | 1 << 13 | (TIMERS - 1) << 8 | 1
ROUTES: Final[u64] = 0x00F0_0000  # pins 20 to 23 of the I/O APIC
NO_PIN: Final = 0xFF

CONFIG_ENABLE: Final[u64] = 1
CONFIG_LEGACY: Final[u64] = 2
TIMER_LEVEL: Final[u64] = 1 << 1
TIMER_ENABLE: Final[u64] = 1 << 2
TIMER_PERIODIC: Final[u64] = 1 << 3
TIMER_PERIODIC_ABLE: Final[u64] = 1 << 4
TIMER_64: Final[u64] = 1 << 5
TIMER_VALUE_SET: Final[u64] = 1 << 6
TIMER_32: Final[u64] = 1 << 8
TIMER_ROUTE: Final[u64] = 0x1F << 9
TIMER_WRITABLE: Final[u64] = TIMER_LEVEL | TIMER_ENABLE | TIMER_32 | TIMER_ROUTE
LOW: Final[u64] = 0xFFFF_FFFF


@struct
class HpetTimer:
    """One comparator."""

    config: u64
    comparator: u64
    period: u64
    due: u64  # counter value (64 bits, never wrapped) of the next match, NEVER: none


@struct
class Hpet:
    """State. No pointers: it can be saved as it stands."""

    version: u32
    config: u64
    status: u64
    offset: u64  # the counter's value while it stands still; else its value at started_at
    started_at: u64  # ns
    raised: u32  # bit n: timer n has matched; hypervisor/devices/platform.py passes it on
    timers: Annotated[list[HpetTimer], TIMERS]


def reset(hpet: Hpet) -> None:
    """Power-on."""
    clear(hpet)
    hpet.version = VERSION
    for number in range(TIMERS):
        timer = hpet.timers[number]
        timer.config = TIMER_64 | (TIMER_PERIODIC_ABLE if number == 0 else 0)
        timer.comparator = NEVER
        timer.due = NEVER


def is_running(hpet: Hpet) -> bool:
    """Does the counter count?"""
    return hpet.config & CONFIG_ENABLE != 0


def is_legacy(hpet: Hpet) -> bool:
    """Do timers 0 and 1 take the place of the 8254 and the clock chip?"""
    return hpet.config & (CONFIG_LEGACY | CONFIG_ENABLE) == CONFIG_LEGACY | CONFIG_ENABLE


def counter(hpet: Hpet, now: u64) -> u64:
    """The main counter at guest time `now` (ns)."""
    if not is_running(hpet) or now < hpet.started_at:
        return hpet.offset
    return wrap_u64(hpet.offset + (now - hpet.started_at) // NS_PER_TICK)


def mask_of(timer: HpetTimer) -> u64:
    """As wide as the timer compares."""
    return LOW if timer.config & TIMER_32 != 0 else NEVER


def aim(hpet: Hpet, timer: HpetTimer, now: u64) -> None:
    """Find the next match behind the counter as it stands."""
    here = counter(hpet, now)
    mask = mask_of(timer)
    gap: u64 = wrap_u64(timer.comparator - here) & mask
    if timer.config & TIMER_ENABLE == 0 or not is_running(hpet):
        timer.due = NEVER
    elif gap > NEVER - 1 - here:
        timer.due = NEVER
    else:
        timer.due = here + gap


def next_deadline(hpet: Hpet) -> u64:
    """Guest time (ns) of the next match; NEVER."""
    best: u64 = NEVER
    for number in range(TIMERS):
        due = hpet.timers[number].due
        if due < best:
            best = due
    if best == NEVER or best < hpet.offset or best - hpet.offset > (NEVER - 1 - hpet.started_at) // NS_PER_TICK:
        return NEVER
    return hpet.started_at + (best - hpet.offset) * NS_PER_TICK


def advance(hpet: Hpet, now: u64) -> None:
    """Let the matches up to `now` happen: bits in `raised`, and in `status` where level-triggered."""
    if not is_running(hpet):
        return
    here = counter(hpet, now)
    for number in range(TIMERS):
        timer = hpet.timers[number]
        if timer.due == NEVER or timer.due > here:
            continue
        hpet.raised = hpet.raised | 1 << number
        if timer.config & TIMER_LEVEL != 0:
            hpet.status = hpet.status | 1 << number
        if timer.config & TIMER_PERIODIC != 0 and timer.period != 0:
            passed: u64 = (here - timer.due) // timer.period + 1
            timer.comparator = wrap_u64(timer.comparator + wrap_u64(passed * timer.period)) & mask_of(timer)
            timer.due = wrap_u64(timer.due + wrap_u64(passed * timer.period))
            if timer.due <= here:
                timer.due = NEVER
        else:
            timer.due = NEVER


def pin_of(hpet: Hpet, number: u32) -> u32:
    """The I/O APIC's pin of a timer; NO_PIN: it is not routed. Legacy replacement is for the caller to look at."""
    route = u32(hpet.timers[number].config >> 9 & 0x1F)
    return route if ROUTES >> (route & 63) & 1 != 0 else NO_PIN


def read(hpet: Hpet, offset: u32, now: u64) -> u64:
    """The 64-bit register at an offset that is a multiple of 8."""
    match offset:
        case 0x000:
            return CAPABILITIES
        case 0x010:
            return hpet.config
        case 0x020:
            return hpet.status
        case 0x0F0:
            return counter(hpet, now)
        case _:
            if offset < 0x100 or offset >= 0x100 + 0x20 * TIMERS:
                return 0
            timer = hpet.timers[(offset - 0x100) >> 5]
            match offset & 0x18:
                case 0x00:
                    return timer.config | ROUTES << 32
                case 0x08:
                    return timer.comparator
                case _:
                    return 0


def write(hpet: Hpet, offset: u32, value: u64, written: u64, now: u64) -> None:
    """The 64-bit register at an offset that is a multiple of 8; only bits in `written` are the guest's, others keep theirs."""
    advance(hpet, now)
    wide: u64 = value & written | read(hpet, offset, now) & (NEVER ^ written)
    match offset:
        case 0x010:
            write_config(hpet, wide, now)
        case 0x020:
            hpet.status = hpet.status & (NEVER ^ (value & written))
        case 0x0F0:
            if not is_running(hpet):
                hpet.offset = wide
        case _:
            if offset >= 0x100 and offset < 0x100 + 0x20 * TIMERS:
                number: u32 = (offset - 0x100) >> 5
                if offset & 0x18 == 0x00:
                    write_timer(hpet, number, wide, now)
                elif offset & 0x18 == 0x08:
                    write_comparator(hpet, hpet.timers[number], wide, written, now)


def write_config(hpet: Hpet, value: u64, now: u64) -> None:
    """Start, stop, legacy replacement."""
    hpet.offset = counter(hpet, now)
    hpet.started_at = now
    hpet.config = value & (CONFIG_ENABLE | CONFIG_LEGACY)
    for number in range(TIMERS):
        aim(hpet, hpet.timers[number], now)


def write_timer(hpet: Hpet, number: u32, value: u64, now: u64) -> None:
    """Configuration of a timer."""
    timer = hpet.timers[number]
    writable: u64 = TIMER_WRITABLE | (TIMER_PERIODIC | TIMER_VALUE_SET if number == 0 else 0)
    kept: u64 = timer.config & (TIMER_PERIODIC_ABLE | TIMER_64)
    route: u64 = value >> 9 & 0x1F
    if ROUTES >> route & 1 == 0:
        value = value & (NEVER ^ TIMER_ROUTE) | timer.config & TIMER_ROUTE
    timer.config = kept | value & writable
    if timer.config & TIMER_LEVEL == 0:
        hpet.status = hpet.status & (NEVER ^ (u64(1) << (number & 63)))
    if timer.config & TIMER_32 != 0:
        timer.comparator = timer.comparator & LOW
        timer.period = timer.period & LOW
    aim(hpet, timer, now)


def write_comparator(hpet: Hpet, timer: HpetTimer, value: u64, written: u64, now: u64) -> None:
    """The next match; of a periodic timer, its period (2.3.9.2.2)."""
    wide: u64 = value & mask_of(timer)
    if timer.config & TIMER_PERIODIC == 0:
        timer.comparator = wide
    elif timer.config & TIMER_VALUE_SET != 0:
        timer.comparator = wide
        timer.config = timer.config & (NEVER ^ TIMER_VALUE_SET)
    else:
        timer.period = (timer.period & (NEVER ^ written) | value & written) & mask_of(timer)
    aim(hpet, timer, now)
