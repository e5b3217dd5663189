"""The one lock of the hypervisor: held by the CPU that runs hypervisor code, from VM exit to VM entry and out of idle.

A ticket lock: CPUs get it in the order in which they came. Whoever holds it finds all of the hypervisor's data at rest. It is
not held in guests, in idle, and while a CPU comes up. docs/smp.md tells why there is one only.
"""
from typing import Final

from hypervisor import clock
from hypervisor.arch_x86.intrinsics import atomic_add_u32, compiler_barrier, load_u32, pause
from hypervisor.build_options import DEBUG
from hypervisor.console import say
from hypervisor.cpu import this_cpu
from hypervisor.lang import address, apart, offsetof, struct, u32, u64, wrap_u32

LONG_NS: Final[u64] = 2_000_000_000  # debug images: to wait longer is a bug, and said


@struct
class Lock:
    """Tickets given and served, mod 2^32; free when they are equal."""

    next: u32
    serving: u32
    holder: u32  # debug images: number of the CPU that holds it


lock: Final = Lock()


def acquire() -> None:
    """Wait for one's turn. Interrupts are off; the CPU does not hold it yet."""
    ticket = atomic_add_u32(address(lock) + offsetof(Lock, "next"), 1)
    if load_u32(address(lock) + offsetof(Lock, "serving")) != ticket:
        _wait(ticket)
    if DEBUG:
        lock.holder = this_cpu().id


def release() -> None:
    """Let the next CPU in; what was written before is seen by it."""
    compiler_barrier()
    lock.serving = wrap_u32(lock.serving + 1)
    compiler_barrier()


@apart
def _wait(ticket: u32) -> None:
    begun: u64 = clock.now()
    told = False
    while load_u32(address(lock) + offsetof(Lock, "serving")) != ticket:
        pause()
        if DEBUG and not told and clock.tsc_khz() != 0 and clock.now() - begun > clock.ticks_of(LONG_NS):
            told = True
            say(f"lock: CPU {this_cpu().id} waits, CPU {lock.holder} holds it")
    compiler_barrier()
