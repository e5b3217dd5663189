"""Sleeps on the timer: `ms=N` once, printing how often it woke."""
from guest_pv_drivers import clock, command_line, threads
from guest_pv_drivers.console import say
from hypervisor.lang import u32, u64


def idle() -> u32:
    """Sleep in steps of `step=` ms until `ms=` have gone by."""
    end = clock.now_ns() + command_line.number("ms", 100) * clock.NS_PER_MS
    woken: u64 = 0
    while clock.now_ns() < end:
        threads.sleep_ms(command_line.number("step", 10))
        woken += 1
    say(f"idle woke {woken} times")
    return 0
