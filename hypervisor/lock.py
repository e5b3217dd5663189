"""The one lock of the hypervisor: held by the CPU that runs hypervisor code, from VM exit to VM entry and out of idle.

Whoever comes when it is free takes it: a lock that is handed over in order stands still where a CPU that waits may itself be off its
core, below an outer hypervisor or emulator. Who comes while others wait lets these go first, but not for long: else a CPU that is asked
to run only while another one holds the lock, as by a deterministic emulator, never has it. Whoever holds it finds all of the hypervisor's data at rest. It is not held in guests,
in idle, and while a CPU comes up. docs/smp.md tells why there is one only.
"""
from typing import Final

from hypervisor import clock
from hypervisor.arch_x86.intrinsics import atomic_add_u64, load_u64, pause
from hypervisor.build_options import DEBUG
from hypervisor.console import say
from hypervisor.cpu import this_cpu
from hypervisor.lang import address, apart, struct, u32, u64

LONG_NS: Final[u64] = 2_000_000_000  # debug images: to wait longer is a bug, or a machine with too few cores, and said
GIVE_WAY: Final = 10_000  # PAUSEs: for so long others who wait may come first between two pieces,
COME_AFTER: Final = 100  # and before a CPU that has just come
TRIES: Final[u64] = 0xFFFF_FFFF  # in Lock.word
WAITS: Final[u64] = 1 << 32
NOT_ONE: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF  # added: one fewer
NOT_WAITS: Final[u64] = 0xFFFF_FFFF_0000_0000


@struct
class Lock:
    """Who has it, and who wants it."""

    word: u64  # TRIES: CPUs that hold it (one) or are about to see that they do not; above: CPUs that wait. 0: it is free
    holder: u32  # debug images: number of the CPU that holds it


lock: Final = Lock()


def acquire() -> None:
    """Wait until it is this CPU's. Interrupts are off; the CPU does not hold it yet."""
    if atomic_add_u64(address(lock), 1) != 0:
        _come()
    if DEBUG:
        lock.holder = this_cpu().id


def release() -> None:
    """Let another CPU in; what was written before is seen by it."""
    atomic_add_u64(address(lock), NOT_ONE)


def give_way() -> None:
    """Let others who wait have it first, and take it again. The CPU holds it."""
    release()
    _let_pass(GIVE_WAY)
    acquire()


@apart
def _come() -> None:
    """The CPU has tried, and the lock was held or waited for."""
    release()
    _let_pass(COME_AFTER)
    begun: u64 = clock.now()
    told = False
    atomic_add_u64(address(lock), WAITS)
    while not _taken():
        pause()
        if DEBUG and not told and clock.tsc_khz() != 0 and clock.now() - begun > clock.ticks_of(LONG_NS):
            told = True
            say(f"lock: CPU {this_cpu().id} waits, CPU {lock.holder} holds it")
    atomic_add_u64(address(lock), NOT_WAITS)


@apart
def _let_pass(most: u32) -> None:
    """Until somebody who waits has it, nobody waits, or for so many PAUSEs."""
    spins: u32 = 0
    word: u64 = load_u64(address(lock))
    while word != 0 and word & TRIES == 0 and spins < most:
        pause()
        spins += 1
        word = load_u64(address(lock))


def _taken() -> bool:
    """Whether it was free and is this CPU's now."""
    if load_u64(address(lock)) & TRIES != 0:
        return False
    if atomic_add_u64(address(lock), 1) & TRIES == 0:
        return True
    release()
    return False
