"""Counts what comes of the interrupts that it asks its local APIC for: `ipis=` to itself, then `timers=` one-shot expiries."""
from typing import Final

from guest_pv_drivers import apic, clock, command_line, idt
from guest_pv_drivers.console import say
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import u32, u64

PATIENCE_NS: Final[u64] = 1_000_000_000
COUNTS_LEAST: Final = 100  # of the bus clock: ns
COUNTS_MOST: Final = 100_000
LATE: Final = 1


def apic_storm() -> u32:
    """One at a time, so that each is told apart; one that does not come within a second is lost."""
    ipis = command_line.number("ipis", 1000)
    timers = command_line.number("timers", 1000)
    apic.enable()
    apic.write(apic.TIMER_DIVIDE, apic.DIVIDE_BY_1)
    apic.write(apic.LVT_TIMER, idt.APIC_VECTOR)
    start = apic.taken.count[0]
    for number in range(ipis):
        before = apic.taken.count[0]
        apic.interrupt_self()
        if not came(before):
            say(f"storm: IPI {number} is lost, {before - start} were taken")
            return LATE
    say(f"storm: {apic.taken.count[0] - start} IPIs taken")
    start = apic.taken.count[0]
    for number in range(timers):
        before = apic.taken.count[0]
        apic.write(apic.TIMER_INITIAL, u32(COUNTS_LEAST + number * 7919 % COUNTS_MOST))
        if not came(before):
            say(f"storm: expiry {number} is lost, {before - start} were taken")
            return LATE
    say(f"storm: {apic.taken.count[0] - start} expiries taken")
    return 0


def came(before: u64) -> bool:
    """Whether an interrupt comes after the `before` that had come; sleeps until then."""
    intrinsics.cli()
    since = clock.now_ns()
    while apic.taken.count[0] <= before and clock.now_ns() - since < PATIENCE_NS:
        intrinsics.halt_once()
    intrinsics.sti()
    return apic.taken.count[0] > before
