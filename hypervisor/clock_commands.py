"""Commands of the operator that concern time: `clock` compares the machine's clocks, `stamps` puts the time before guests' lines."""
from typing import Final

from hypervisor import clock, guest_console, text
from hypervisor.arch_x86 import hpet
from hypervisor.console import say
from hypervisor.lang import struct, text_at, u64


@struct
class Start:
    """What both clocks said when the comparison began."""

    ticks: u64
    hpet_ns: u64


start: Final = Start()


def begin() -> None:
    """Compare from now on: at boot, after hpet.init."""
    start.ticks = clock.now()
    if hpet.is_there():
        start.hpet_ns = hpet.nanoseconds()


def clock_(arguments: u64) -> None:
    """clock"""
    by_tsc: u64 = clock.ns_of(clock.now() - start.ticks) // 1000
    say(f"  TSC  {by_tsc} us since boot, at {clock.tsc_khz()} kHz")
    if hpet.is_there():
        by_hpet: u64 = (hpet.nanoseconds() - start.hpet_ns) // 1000
        say(f"  HPET {by_hpet} us since boot")
    else:
        say("  HPET none")


def stamps(arguments: u64) -> None:
    """stamps on|off"""
    text.cut_word(arguments)
    wanted = text_at(arguments)
    if text.same(wanted, "on") or text.same(wanted, "off"):
        guest_console.attached.stamps = text.same(wanted, "on")
    else:
        say("stamps on, stamps off")
