"""One-shot timers: a binary heap by deadline, and the local APIC's timer armed for its root.

Timers belong to their owners (Vcpu.timer, Cpu.slice ...); the heap holds references. A cancelled timer may leave the
hardware armed: the interrupt then finds nothing to do. Called with interrupts off; one CPU in this version.
"""
from typing import Annotated, Final

from hypervisor import clock
from hypervisor.arch_x86 import lapic
from hypervisor.lang import struct, u32, u64
from hypervisor.model import Cpu, Timer

CAPACITY: Final = 1024
GUEST_PERIOD_LEAST_NS: Final[u64] = 200_000  # as KVM's min_timer_period_us
NEVER: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF  # no deadline


@struct
class Heap:
    """slots[1] is the earliest; the children of i are 2i and 2i+1. slots[0] is not used."""

    count: u32
    armed: u64  # the deadline the hardware was given, NEVER: none
    slots: Annotated[list[Timer | None], CAPACITY + 1]


heap: Final = Heap()


def init(cpu: Cpu) -> None:
    """Empty this CPU's heap."""
    heap.count = 0
    heap.armed = NEVER
    cpu.slice.heap_index = 0
    cpu.reap.heap_index = 0


def arm(cpu: Cpu, timer: Timer, deadline: u64) -> None:
    """Let `timer` expire at `deadline` (TSC); an armed timer is moved. At most CAPACITY timers may be armed."""
    index = timer.heap_index
    if index == 0:
        assert heap.count < CAPACITY
        heap.count += 1
        index = heap.count
        timer.deadline = deadline
        _rise(timer, index)
    elif deadline < timer.deadline:
        timer.deadline = deadline
        _rise(timer, index)
    else:
        timer.deadline = deadline
        _sink(timer, index)
    _program()


def arm_for_guest(cpu: Cpu, timer: Timer, deadline: u64) -> None:
    """arm, for a deadline that a guest has chosen: not sooner after the timer's last expiry than GUEST_PERIOD_LEAST_NS, so
    that a guest cannot have the host interrupted more often than that, at the expense of those who run then."""
    least: u64 = timer.expired_at + clock.ticks_of(GUEST_PERIOD_LEAST_NS)
    arm(cpu, timer, max(deadline, least) if timer.expired_at != 0 else deadline)


def cancel(cpu: Cpu, timer: Timer) -> None:
    """Take a timer out of the heap; one that is not armed may be given."""
    index = timer.heap_index
    if index == 0:
        return
    timer.heap_index = 0
    last = _slot(heap.count)
    heap.slots[heap.count] = None
    heap.count -= 1
    if index > heap.count:
        return
    if last.deadline < timer.deadline:
        _rise(last, index)
    else:
        _sink(last, index)


def expire(cpu: Cpu) -> Timer | None:
    """Take out one timer whose deadline has passed. None: there is no more, and the hardware waits for the next.

    For WORK_INTERRUPT: call until None; the caller does what each timer's kind asks for.
    """
    if heap.count != 0:
        first = _slot(1)
        now: u64 = clock.now()
        if first.deadline <= now:
            cancel(cpu, first)
            first.expired_at = now
            return first
    heap.armed = NEVER
    _program()
    return None


def next_deadline(cpu: Cpu) -> u64:
    """The earliest deadline (TSC), NEVER if no timer is armed."""
    return NEVER if heap.count == 0 else _slot(1).deadline


def _slot(index: u32) -> Timer:
    timer = heap.slots[index]
    assert timer is not None
    return timer


def _place(timer: Timer, index: u32) -> None:
    heap.slots[index] = timer
    timer.heap_index = index


def _rise(timer: Timer, start: u32) -> None:
    """Put `timer` at the hole `start`, or above it where its deadline belongs."""
    index = start
    while index > 1:
        parent = _slot(index >> 1)
        if parent.deadline <= timer.deadline:
            break
        _place(parent, index)
        index = index >> 1
    _place(timer, index)


def _sink(timer: Timer, start: u32) -> None:
    """Put `timer` at the hole `start`, or below it where its deadline belongs."""
    index = start
    while 2 * index <= heap.count:
        child = 2 * index
        if child < heap.count and _slot(child + 1).deadline < _slot(child).deadline:
            child += 1
        earlier = _slot(child)
        if timer.deadline <= earlier.deadline:
            break
        _place(earlier, index)
        index = child
    _place(timer, index)


def _program() -> None:
    """Give the hardware the earliest deadline, unless it waits for that or an earlier one already."""
    if heap.count == 0:
        return
    first = _slot(1).deadline
    if first < heap.armed:
        heap.armed = first
        lapic.arm_timer(first)
