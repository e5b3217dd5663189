"""hypervisor/timers.py: the heap under any history gives what a sorted list would, and the hardware waits for its root."""
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hypervisor import clock, timers
from hypervisor.arch_x86 import lapic
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.lang import address
from hypervisor.model import Cpu, Timer


class TimerHeap(RuleBasedStateMachine):
    """Some timers, and for each its deadline while it is armed."""

    def __init__(self) -> None:
        super().__init__()
        machine.reset()
        machine.tsc, machine.tsc_step = 1000, 0
        machine.msrs[lapic.IA32_TSC_DEADLINE] = 0
        clock.init(1_000_000)
        lapic.lapic.tsc_deadline = True
        self.cpu = Cpu()
        timers.init(self.cpu)
        self.timers = [Timer() for _ in range(12)]
        self.armed: dict[int, int] = {}

    @rule(index=st.integers(0, 11), delay=st.integers(0, 50))
    def arm(self, index: int, delay: int) -> None:
        self.armed[index] = machine.tsc + delay
        timers.arm(self.cpu, self.timers[index], machine.tsc + delay)

    @rule(index=st.integers(0, 11))
    def cancel(self, index: int) -> None:
        self.armed.pop(index, None)
        timers.cancel(self.timers[index])

    @rule(ticks=st.integers(0, 40))
    def let_time_pass(self, ticks: int) -> None:
        machine.tsc += ticks
        due = sorted(deadline for deadline in self.armed.values() if deadline <= machine.tsc)
        got = []
        while (timer := timers.expire(self.cpu)) is not None:
            index = next(i for i, other in enumerate(self.timers) if address(other) == address(timer))
            assert self.armed.pop(index) == timer.deadline
            assert timer.heap_index == 0
            got.append(timer.deadline)
        assert got == due

    @invariant()
    def the_earliest_is_known_and_the_hardware_waits_for_it(self) -> None:
        earliest = min(self.armed.values(), default=timers.NEVER)
        assert timers.next_deadline(self.cpu) == earliest
        if self.armed:
            assert self.cpu.timers.armed <= earliest
            assert machine.msrs[lapic.IA32_TSC_DEADLINE] == self.cpu.timers.armed

    @invariant()
    def parents_are_earlier_and_places_are_known(self) -> None:
        for index in range(1, self.cpu.timers.count + 1):
            timer = self.cpu.timers.slots[index]
            assert timer is not None and timer.heap_index == index
            parent = self.cpu.timers.slots[index // 2]
            assert parent is None or parent.deadline <= timer.deadline


TestTimerHeap = TimerHeap.TestCase
TestTimerHeap.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
