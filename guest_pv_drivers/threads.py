"""Small threads: round robin, preempted every 10 ms while another is ready; sleep; wait for an event.

All state changes with interrupts off. A thread that gives up the CPU does so in `switch`, on its own stack; it goes on there.
"""
from enum import IntEnum
from typing import Annotated, Final

from guest_pv_drivers import clock, events, hypercall
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import address, link_address, offsetof, struct, u8, u32, u64

MAX_THREADS: Final = 8
STACK_BYTES: Final = 4096  # aligned to as much: vcpus.of_stack. build/make_image.py sees that half of it is enough
SLICE_NS: Final = 10000000
SAVED_REGISTERS: Final = 6  # thread_switch pops R15, R14, R13, R12, RBP, RBX, then returns


class ThreadState(IntEnum):
    """Who may run."""

    FREE = 0
    READY = 1
    WAITING = 2  # for a wanted event, or until wake_at


@struct
class Thread:
    """One thread; number 0 is the one that booted."""

    state: ThreadState
    rsp: u64  # while it does not run
    wanted: u64  # EVENT_* that it waits for
    came: u64  # EVENT_* that it has not been told of, wanted or not
    wake_at: u64  # guest ns; 0: no time limit


@struct(align=4096)
class Stacks:
    """One for each thread; that of thread 0 is start.S's."""

    of: Annotated[list[Annotated[list[u8], STACK_BYTES]], MAX_THREADS]


@struct(align=16)
class Scheduler:
    """All threads."""

    current: u32
    thread: Annotated[list[Thread], MAX_THREADS]


scheduler: Final = Scheduler()
stacks: Final = Stacks()


def init() -> None:
    """The running code becomes thread 0."""
    scheduler.thread[0].state = ThreadState.READY


def create(entry: u64, argument: u64) -> None:
    """Start a thread: main.THREADS[entry](argument)."""
    flags = intrinsics.interrupts_off()
    new: u32 = 1
    while new < MAX_THREADS and scheduler.thread[new].state != ThreadState.FREE:
        new += 1
    assert new < MAX_THREADS
    thread = scheduler.thread[new]
    top = address(stacks.of[new]) + STACK_BYTES
    intrinsics.store_u64(top - 8, link_address("thread_first"))
    intrinsics.store_u64(top - 16, entry)  # RBX
    intrinsics.store_u64(top - 24, argument)  # RBP
    thread.rsp = top - 8 - SAVED_REGISTERS * 8
    thread.came = 0
    thread.state = ThreadState.READY
    intrinsics.interrupts_restore(flags)


def next_ready() -> u32:
    """The thread after the current one that is ready (perhaps the current); MAX_THREADS: none."""
    for i in range(1, MAX_THREADS + 1):
        candidate = u32((scheduler.current + u32(i)) % MAX_THREADS)
        if scheduler.thread[candidate].state == ThreadState.READY:
            return candidate
    return MAX_THREADS


def deliver(pending: u64) -> None:
    """Wake the threads that wait for these events, and those whose time has come. Interrupts are off."""
    now = clock.now_ns()
    for i in range(MAX_THREADS):
        thread = scheduler.thread[i]
        thread.came |= pending
        due = thread.wake_at != 0 and thread.wake_at <= now
        if thread.state == ThreadState.WAITING and (thread.came & thread.wanted != 0 or due):
            thread.state = ThreadState.READY


def set_timer() -> None:
    """One timer for the earliest of: a sleeper's time, the end of the slice where two are ready."""
    now = clock.now_ns()
    deadline: u64 = 0
    ready: u32 = 0
    for i in range(MAX_THREADS):
        thread = scheduler.thread[i]
        if thread.state == ThreadState.READY:
            ready += 1
        if thread.state == ThreadState.WAITING and thread.wake_at != 0 and (deadline == 0 or thread.wake_at < deadline):
            deadline = thread.wake_at
    if ready > 1 and (deadline == 0 or now + SLICE_NS < deadline):
        deadline = now + SLICE_NS
    clock.set_timer(deadline)


def switch() -> None:
    """Run another ready thread, or this one; where none is ready, block until an event makes one so. Interrupts are off."""
    while next_ready() == MAX_THREADS:
        set_timer()
        hypercall.block()
        deliver(events.take(0))
    old = scheduler.current
    new = next_ready()
    scheduler.current = new
    set_timer()
    if new != old:
        intrinsics.thread_switch(address(scheduler.thread[old]) + offsetof(Thread, "rsp"), scheduler.thread[new].rsp)


def yield_now() -> None:
    """Let the other threads run."""
    flags = intrinsics.interrupts_off()
    switch()
    intrinsics.interrupts_restore(flags)


def wait(wanted: u64, deadline_ns: u64) -> u64:
    """Sleep until one of the wanted events, or guest time deadline_ns (0: no limit); the events that came.

    Events that came before the call count, since the thread began or was last told of them: look again, there may be nothing new.
    """
    flags = intrinsics.interrupts_off()
    thread = scheduler.thread[scheduler.current]
    thread.wanted = wanted
    thread.wake_at = deadline_ns
    if thread.came & wanted == 0:
        thread.state = ThreadState.WAITING
        switch()
    came = thread.came & wanted
    thread.came &= ~wanted
    intrinsics.interrupts_restore(flags)
    return came


def sleep_ms(ms: u64) -> None:
    """Sleep for so many milliseconds of guest time."""
    wait(0, clock.now_ns() + ms * clock.NS_PER_MS)


def end() -> None:
    """End the current thread; does not return."""
    intrinsics.interrupts_off()
    scheduler.thread[scheduler.current].state = ThreadState.FREE
    switch()
