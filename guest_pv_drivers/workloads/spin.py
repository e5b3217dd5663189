"""Uses all the CPU it gets for `ms=` of guest time, from `at=` ms after the start on, and says how much that was."""
from typing import Final

from guest_pv_drivers import clock, command_line, threads
from guest_pv_drivers.console import say
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import u32, u64

ITERATIONS_PER_LOOK: Final = 20000  # between two looks at the clock, which are exits


def spin() -> u32:
    """Count."""
    threads.wait(0, command_line.number("at", 0) * clock.NS_PER_MS + 1)
    end = clock.now_ns() + command_line.number("ms", 100) * clock.NS_PER_MS
    iterations: u64 = 0
    while clock.now_ns() < end:
        for _ in range(ITERATIONS_PER_LOOK):
            intrinsics.compiler_barrier()
        iterations += ITERATIONS_PER_LOOK
    say(f"iterations {iterations}")
    return 0
