"""The TSC's rate, measured against the PIT (i8254 channel 2, 1.193182 MHz), and the local APIC timer's with it.

Intervals begin and end on a change of the PIT's count, so the error is the time of one port read, not of one count. CPUID
leaves 15H and 16H are not used: emulators claim what they do not do.
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
LONGEST_WAIT: Final = 1_000_000  # reads of the PIT before it is held to be dead


@struct
class Edge:
    """One change of the PIT's count."""

    count: u32
    tsc: u64
    apic: u64


@struct
class Rates:
    """What was measured."""

    tsc_khz: u64  # 0: there is no working PIT
    apic_khz: u64


rates: Final = Rates()


def measure() -> None:
    """Fill `rates`; takes 10 ms. The local APIC timer must not be in use."""
    first = Edge()
    last = Edge()
    speaker = inb(PORT_61) & ~u32(PORT_61_SPEAKER | PORT_61_GATE_2)
    outb(PORT_61, u8(speaker))
    outb(PIT_COMMAND, PIT_CHANNEL_2_MODE_0)
    outb(PIT_CHANNEL_2, 0xFF)
    outb(PIT_CHANNEL_2, 0xFF)
    outb(PORT_61, u8(speaker | PORT_61_GATE_2))
    lapic.start_counting()
    if _next_edge(0xFFFF, first) and _next_edge(first.count - COUNTS, last):
        elapsed: u64 = first.count - last.count
        rates.tsc_khz = (last.tsc - first.tsc) * PIT_HZ // (elapsed * 1000)
        rates.apic_khz = (last.apic - first.apic) * PIT_HZ // (elapsed * 1000)
    outb(PORT_61, u8(speaker))


def _next_edge(below: u64, edge: Edge) -> bool:
    """Wait until the count is at most `below` and changes; False: it does not move."""
    before = _count()
    for _ in range(LONGEST_WAIT):
        now = _count()
        if now != before and now <= below:
            edge.tsc = rdtsc()
            edge.apic = lapic.counted()
            edge.count = now
            return True
        before = now
        pause()
    return False


def _count() -> u16:
    outb(PIT_COMMAND, PIT_LATCH_CHANNEL_2)
    low = inb(PIT_CHANNEL_2)
    return u16(inb(PIT_CHANNEL_2) << 8 | low)
