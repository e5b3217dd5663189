"""Three threads that never give up the CPU by themselves, and one that sleeps beside them: the timer lets each run."""
from typing import Annotated, Final

from guest_pv_drivers import command_line, threads
from guest_pv_drivers.console import say
from hypervisor.arch_x86.intrinsics import atomic_add_u32, atomic_load_u32, atomic_store_u32
from hypervisor.lang import address, offsetof, struct, u32, u64

COUNTERS: Final = 3
MINUS_ONE: Final[u32] = 0xFFFFFFFF
THREAD_COUNTER: Final[u64] = 1  # main.THREADS


@struct
class Shared:
    """What the threads share."""

    stop: u32
    running: u32
    count: Annotated[list[u64], COUNTERS]


shared: Final = Shared()


def counter(which: u64) -> None:
    """Body of one thread: counts until it is told to stop."""
    atomic_add_u32(address(shared) + offsetof(Shared, "running"), 1)
    while atomic_load_u32(address(shared)) == 0:
        shared.count[which] += 1
    atomic_add_u32(address(shared) + offsetof(Shared, "running"), MINUS_ONE)


def preemption() -> u32:
    """Let them run for `ms=`, then see that all of them did."""
    for i in range(COUNTERS):
        threads.create(THREAD_COUNTER, u64(i))
    threads.sleep_ms(command_line.number("ms", 200))
    running: u32 = shared.running
    atomic_store_u32(address(shared), 1)
    while shared.running != 0:
        threads.yield_now()
    say(f"preemption: {running} threads counted {shared.count[0]}, {shared.count[1]}, {shared.count[2]}")
    return 0 if running == COUNTERS else 1
