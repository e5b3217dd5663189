"""Threads of the guest kernel: who is woken by what, and which timer is set. Stacks are not switched here."""

from collections.abc import Iterator

import pytest

from guest_pv_drivers import threads
from guest_pv_drivers.threads import ThreadState
from hypervisor.abi import EVENT_CONSOLE, EVENT_MEMORY_PRESSURE, EVENT_TIMER, EVENT_WAKE, HYPERCALL_BASE, Hypercall
from hypervisor.arch_x86.fake.machine import Halted, machine
from hypervisor.lang import clear, read_memory, set_link_address

NOW = 1_000_000_000


class FakeHypervisor:
    """Knows the time and the timer; a BLOCK that nothing would end is an error."""

    def __init__(self) -> None:
        self.now, self.timer = NOW, 0

    def answer(self, number: int, a: int, _b: int, _c: int, _d: int) -> int:
        match number - HYPERCALL_BASE:
            case Hypercall.TIME:
                return self.now
            case Hypercall.TIMER_SET:
                self.timer = a
                return 0
            case Hypercall.BLOCK:
                assert self.timer != 0, "the kernel sleeps for ever"
                self.now = max(self.now, self.timer)
                return 0
        raise AssertionError(number)


@pytest.fixture
def hypervisor() -> Iterator[FakeHypervisor]:
    machine.reset()
    fake = FakeHypervisor()
    machine.on_hypercall = fake.answer
    set_link_address("thread_first", 0xF00)
    clear(threads.scheduler)
    threads.init()
    yield fake
    machine.reset()


def state(number: int) -> ThreadState:
    return threads.scheduler.thread[number].state


def test_a_new_thread_is_ready_on_an_aligned_stack(hypervisor: FakeHypervisor) -> None:
    threads.create(3, 77)
    rsp = threads.scheduler.thread[1].rsp
    assert state(1) == ThreadState.READY
    assert (rsp + 7 * 8) % 16 == 0  # as the ABI wants it before a call
    assert [read_memory(rsp + 8 * i, 8) for i in (4, 5, 6)] == [77, 3, 0xF00]


def test_ready_threads_take_turns(hypervisor: FakeHypervisor) -> None:
    threads.create(0, 0)
    threads.create(0, 0)
    with pytest.raises(Halted):
        threads.yield_now()
    assert threads.scheduler.current == 1
    assert hypervisor.timer == NOW + threads.SLICE_NS
    with pytest.raises(Halted):
        threads.yield_now()
    assert threads.scheduler.current == 2
    with pytest.raises(Halted):
        threads.yield_now()
    assert threads.scheduler.current == 0


def test_alone_it_runs_without_a_timer(hypervisor: FakeHypervisor) -> None:
    threads.yield_now()
    assert threads.scheduler.current == 0
    assert hypervisor.timer == 0


def test_sleep_blocks_until_its_time(hypervisor: FakeHypervisor) -> None:
    threads.sleep_ms(20)
    assert hypervisor.now == NOW + 20_000_000
    assert state(0) == ThreadState.READY


def wait_in_the_background(events: int) -> None:
    """Thread 0 waits, thread 1 runs."""
    threads.create(0, 0)
    with pytest.raises(Halted):
        threads.wait(events, 0)
    assert threads.scheduler.current == 1


def test_events_wake_those_who_wait_for_them(hypervisor: FakeHypervisor) -> None:
    wait_in_the_background(EVENT_CONSOLE | EVENT_MEMORY_PRESSURE)
    threads.deliver(EVENT_WAKE | EVENT_TIMER)
    assert state(0) == ThreadState.WAITING
    threads.deliver(EVENT_MEMORY_PRESSURE | EVENT_WAKE)
    assert state(0) == ThreadState.READY
    assert threads.scheduler.thread[0].came & threads.scheduler.thread[0].wanted == EVENT_MEMORY_PRESSURE


def test_an_event_before_a_wait_is_not_missed(hypervisor: FakeHypervisor) -> None:
    """It comes after the look at what it tells of: the first wait, or one after a wait for another, must not sleep on it."""
    threads.deliver(EVENT_MEMORY_PRESSURE | EVENT_CONSOLE)
    assert threads.wait(EVENT_MEMORY_PRESSURE, 0) == EVENT_MEMORY_PRESSURE
    assert threads.wait(EVENT_CONSOLE, 0) == EVENT_CONSOLE
    assert hypervisor.timer == 0  # it did not sleep
    assert threads.wait(EVENT_CONSOLE, NOW + 5) == 0  # each is told of once


def test_a_new_thread_is_told_of_nothing_older(hypervisor: FakeHypervisor) -> None:
    threads.scheduler.thread[1].came = EVENT_CONSOLE  # of an earlier one in its place
    threads.create(0, 0)
    assert threads.scheduler.thread[1].came == 0


def test_a_wait_with_a_deadline_ends(hypervisor: FakeHypervisor) -> None:
    assert threads.wait(EVENT_CONSOLE, NOW + 5) == 0
    assert hypervisor.now == NOW + 5
