"""Uses all the CPU it gets for `ms=` of guest time, from `at=` ms after the start on, and says how much that was."""
from typing import Final

from guest_pv_drivers import clock, command_line, threads
from guest_pv_drivers.console import say
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import u32, u64

ITERATIONS_PER_LOOK: Final = 20000  # between two looks at the clock, which are exits, unless the command line says `look=`


def spin() -> u32:
    """Count."""
    begin = command_line.number("at", 0) * clock.NS_PER_MS
    threads.wait(0, begin + 1)
    if begin == 0:
        begin = clock.now_ns()
    end = begin + command_line.number("ms", 100) * clock.NS_PER_MS
    look = command_line.number("look", ITERATIONS_PER_LOOK)
    iterations: u64 = 0
    while clock.now_ns() < end:
        for _ in range(look):
            intrinsics.compiler_barrier()
        iterations += look
        intrinsics.pause()  # QEMU's -icount executes one CPU at a time: at a PAUSE the other has its turn
    say(f"iterations {iterations}")
    return 0
