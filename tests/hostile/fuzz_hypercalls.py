"""Random hypercalls: numbers and arguments at the edges, in a memory of which only a part may be taken."""
from typing import Annotated, Final

from guest_pv_drivers import hypercall
from hypervisor.abi import ABI_VERSION, HYPERCALL_BASE, HYPERCALL_COUNT, Hypercall
from hypervisor.arch_x86.intrinsics import load_u64, store_u64
from hypervisor.lang import link_address, struct, u32, u64, wrap_u64
from tests.hostile import chance, machine
from tests.hostile.chance import below, draw, nasty
from tests.hostile.cpu import PAGE_BYTES

SCRATCH_BYTES: Final[u64] = 4 << 20  # at the end of memory: calls may change it
SENTINELS: Final = 16  # pages behind the image that no call may change
LOWEST_ERROR: Final = 6
ANSWERS: Final = 8


@struct
class Tally:
    """How many calls answered what: by error number, 0: a result, 7: no answer that exists."""

    answers: Annotated[list[u64], ANSWERS]


tally: Final = Tally()


def scratch() -> u64:
    """An address in the part of memory that calls may change, or one that is no memory at all."""
    end = machine.machine.memory_bytes
    match u32(below(4)):
        case 0:
            return wrap_u64(end + nasty() % (1 << 62))
        case 1:
            return end - below(8200)
        case 2:
            return end - SCRATCH_BYTES + (below(SCRATCH_BYTES) & ~u64(63))
        case _:
            return end - SCRATCH_BYTES + below(SCRATCH_BYTES)


def call_once() -> None:
    """One call that cannot end this VM, and its answer counted."""
    number: u64 = below(HYPERCALL_COUNT) if below(16) != 0 else nasty()
    a: u64 = nasty()
    b: u64 = nasty()
    c: u64 = nasty() if below(2) != 0 else below(5)
    match number:
        case Hypercall.CONSOLE_WRITE:
            a = scratch()
            b = 4097 + below(1 << 40) if below(16) != 0 else below(2)
        case Hypercall.CONSOLE_READ | Hypercall.EVENTS_SETUP:
            a = scratch()
            b = nasty() if below(2) != 0 else below(300)
        case Hypercall.BLOCK:
            if not machine.machine.pv:
                return  # nothing would wake it
            hypercall.call1(Hypercall.TIMER_SET, machine.time_ns() + 1)
        case Hypercall.POWER_OFF:
            a = a | 256
        case Hypercall.CRASH:
            b = b | 512
        case Hypercall.REBOOT:
            return
        case Hypercall.MEM_RELEASE | Hypercall.MEM_POPULATE | Hypercall.PAGE_STATE:
            a = scratch() >> 12
            b = below(16) if below(16) != 0 else b
        case _:
            pass
    answer = hypercall.call(wrap_u64(HYPERCALL_BASE + number), a, b, c)
    if answer >= 0:
        tally.answers[0] += 1
    elif answer >= -LOWEST_ERROR:
        tally.answers[u64(0 - answer)] += 1
    else:
        tally.answers[7] += 1
        machine.say(f"FAILED: call {number:#x} ({a:#x}, {b:#x}, {c:#x}) answered {answer}")


def sentinel(index: u64) -> u64:
    """The address of one word that must not change."""
    return ((link_address("__image_end") + PAGE_BYTES) & ~u64(PAGE_BYTES - 1)) + index * PAGE_BYTES


def fuzz_hypercalls() -> u32:
    """`count=` calls. The memory that no call was given is as it was, and a good call still works."""
    count = machine.number("count=", 1000)
    for i in range(SENTINELS):
        store_u64(sentinel(i), wrap_u64(sentinel(i) * 0x9E3779B97F4A7C15))
    for _ in range(count):
        call_once()
    wrong: u64 = tally.answers[7]
    for i in range(SENTINELS):
        if load_u64(sentinel(i)) != wrap_u64(sentinel(i) * 0x9E3779B97F4A7C15):
            wrong += 1
    if u64(hypercall.call0(Hypercall.VERSION)) & 0xFFFFFFFF != ABI_VERSION:
        wrong += 1
    said = tally.answers
    machine.say(f"answers: {said[0]} results, errors {said[1]} {said[2]} {said[3]} {said[4]} {said[5]} {said[6]}")
    machine.say(f"{count} hypercalls, seed {machine.number('seed=', 1)}, {wrong} wrong")
    return 0 if wrong == 0 else 1
