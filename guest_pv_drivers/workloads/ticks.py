"""Prints guest time every `step=` ms until it is `ms=`."""
from guest_pv_drivers import clock, command_line, threads
from guest_pv_drivers.console import say
from hypervisor.lang import u32


def ticks() -> u32:
    """`tick N`, N in ms of guest time."""
    end = command_line.number("ms", 100) * clock.NS_PER_MS
    while clock.now_ns() < end:
        say(f"tick {clock.now_ns() // clock.NS_PER_MS}")
        threads.sleep_ms(command_line.number("step", 10))
    return 0
