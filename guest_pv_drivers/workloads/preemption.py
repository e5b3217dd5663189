"""Three threads that never give up the CPU by themselves, and one that sleeps beside them: the timer lets each run."""
from typing import Annotated, Final

from guest_pv_drivers import command_line, threads
from guest_pv_drivers.console import say
from hypervisor.arch_x86.intrinsics import atomic_load_u64, atomic_or_u64
from hypervisor.lang import address, offsetof, struct, u32, u64

COUNTERS: Final = 3
ALL_ENDED: Final = 7  # a bit for each
THREAD_COUNTER: Final[u64] = 1  # main.THREADS


@struct
class Shared:
    """What the threads share."""

    stop: u64
    ended: u64  # a bit for each
    count: Annotated[list[u64], COUNTERS]


shared: Final = Shared()


def counter(which: u64) -> None:
    """Body of one thread: counts until it is told to stop."""
    while atomic_load_u64(address(shared)) == 0:
        shared.count[which] += 1
    atomic_or_u64(address(shared) + offsetof(Shared, "ended"), u64(1) << (which & 3))


def preemption() -> u32:
    """Let them run for `ms=`, then see that all of them did."""
    for i in range(COUNTERS):
        threads.create(THREAD_COUNTER, u64(i))
    threads.sleep_ms(command_line.number("ms", 200))
    shared.stop = 1
    while atomic_load_u64(address(shared) + offsetof(Shared, "ended")) != ALL_ENDED:
        threads.yield_now()
    say(f"preemption: counted {shared.count[0]}, {shared.count[1]}, {shared.count[2]}")
    return 0
