"""One-shot timers: a binary heap by deadline for each CPU, and its local APIC's timer armed for the root.

Timers belong to their owners (Vcpu.timer, Cpu.slice ...); a heap holds references. A timer that is cancelled, or armed again
at another CPU, may leave the hardware armed: the interrupt then finds nothing to do. Called with interrupts off.
"""
from typing import Final

from hypervisor import clock
from hypervisor.arch_x86 import lapic
from hypervisor.lang import address, u32, u64
from hypervisor.model import MAX_TIMERS, Cpu, Timer, TimerHeap

GUEST_PERIOD_LEAST_NS: Final[u64] = 200_000  # as KVM's min_timer_period_us
NEVER: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF  # no deadline


def init(cpu: Cpu) -> None:
    """Empty this CPU's heap."""
    cpu.timers.count = 0
    cpu.timers.armed = NEVER
    cpu.slice.heap_index = 0
    cpu.reap.heap_index = 0


def arm(cpu: Cpu, timer: Timer, deadline: u64) -> None:
    """Let `timer` expire at `deadline` (TSC) on this CPU, which is `cpu`; an armed timer is moved. At most MAX_TIMERS a CPU."""
    other = timer.cpu
    if timer.heap_index != 0 and other is not None and address(other) != address(cpu):
        cancel(timer)
    heap = cpu.timers
    index = timer.heap_index
    if index == 0:
        assert heap.count < MAX_TIMERS
        heap.count += 1
        index = heap.count
        timer.cpu = cpu
        timer.deadline = deadline
        _rise(heap, timer, index)
    elif deadline < timer.deadline:
        timer.deadline = deadline
        _rise(heap, timer, index)
    else:
        timer.deadline = deadline
        _sink(heap, timer, index)
    _program(heap)


def arm_for_guest(cpu: Cpu, timer: Timer, deadline: u64) -> None:
    """arm, for a deadline that a guest has chosen: not sooner after the timer's last expiry than GUEST_PERIOD_LEAST_NS, so
    that a guest cannot have the host interrupted more often than that, at the expense of those who run then."""
    least: u64 = timer.expired_at + clock.ticks_of(GUEST_PERIOD_LEAST_NS)
    arm(cpu, timer, max(deadline, least) if timer.expired_at != 0 else deadline)


def cancel(timer: Timer) -> None:
    """Take a timer out of its heap, whichever CPU's; one that is not armed may be given."""
    cpu = timer.cpu
    index = timer.heap_index
    if index == 0 or cpu is None:
        return
    heap = cpu.timers
    timer.heap_index = 0
    last = _slot(heap, heap.count)
    heap.slots[heap.count] = None
    heap.count -= 1
    if index > heap.count:
        return
    if last.deadline < timer.deadline:
        _rise(heap, last, index)
    else:
        _sink(heap, last, index)


def expire(cpu: Cpu) -> Timer | None:
    """Take out one timer whose deadline has passed. None: there is no more, and the hardware waits for the next.

    For WORK_INTERRUPT: call until None; the caller does what each timer's kind asks for.
    """
    heap = cpu.timers
    if heap.count != 0:
        first = _slot(heap, 1)
        now: u64 = clock.now()
        if first.deadline <= now:
            cancel(first)
            first.expired_at = now
            return first
    heap.armed = NEVER
    _program(heap)
    return None


def next_deadline(cpu: Cpu) -> u64:
    """The earliest deadline (TSC), NEVER if no timer is armed."""
    return NEVER if cpu.timers.count == 0 else _slot(cpu.timers, 1).deadline


def _slot(heap: TimerHeap, index: u32) -> Timer:
    timer = heap.slots[index]
    assert timer is not None
    return timer


def _place(heap: TimerHeap, timer: Timer, index: u32) -> None:
    heap.slots[index] = timer
    timer.heap_index = index


def _rise(heap: TimerHeap, timer: Timer, start: u32) -> None:
    """Put `timer` at the hole `start`, or above it where its deadline belongs."""
    index = start
    while index > 1:
        parent = _slot(heap, index >> 1)
        if parent.deadline <= timer.deadline:
            break
        _place(heap, parent, index)
        index = index >> 1
    _place(heap, timer, index)


def _sink(heap: TimerHeap, timer: Timer, start: u32) -> None:
    """Put `timer` at the hole `start`, or below it where its deadline belongs."""
    index = start
    while 2 * index <= heap.count:
        child = 2 * index
        if child < heap.count and _slot(heap, child + 1).deadline < _slot(heap, child).deadline:
            child += 1
        earlier = _slot(heap, child)
        if timer.deadline <= earlier.deadline:
            break
        _place(heap, earlier, index)
        index = child
    _place(heap, timer, index)


def _program(heap: TimerHeap) -> None:
    """Give the hardware the earliest deadline, unless it waits for that or an earlier one already."""
    if heap.count == 0:
        return
    first = _slot(heap, 1).deadline
    if first < heap.armed:
        heap.armed = first
        lapic.arm_timer(first)
