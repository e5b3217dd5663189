"""The guest's frame allocator against a hypervisor that gives and takes at random."""

from typing import Annotated

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from guest_pv_drivers import memory, memory_pressure
from hypervisor.abi import HYPERCALL_BASE, Error, Hypercall, PageState
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.lang import address, clear, struct, u8

FIRST = 100
FRAMES = 200


@struct
class Bytes:
    """The allocator's map."""

    of: Annotated[list[u8], FRAMES]


class FakeHypervisor:
    """Answers the memory calls: at most `chunk` pages each, never more than `limit` frames in all."""

    def __init__(self, chunk: int, limit: int) -> None:
        self.chunk, self.limit = chunk, limit
        self.backed: set[int] = set()
        self.unused: set[int] = set()

    def answer(self, number: int, first: int, count: int, state: int, _d: int) -> int:
        pages = range(first, first + min(count, self.chunk))
        assert first >= FIRST and pages.stop <= FRAMES
        match number - HYPERCALL_BASE:
            case Hypercall.MEM_RELEASE:
                self.backed -= set(pages)
                self.unused -= set(pages)
                return len(pages)
            case Hypercall.MEM_POPULATE:
                for done, page in enumerate(pages):
                    if page not in self.backed and len(self.backed) >= self.limit:
                        return done if done else (1 << 64) - Error.NO_MEMORY
                    self.backed.add(page)
                return len(pages)
            case Hypercall.PAGE_STATE:
                assert state == PageState.UNUSED
                self.unused |= set(pages)
                return len(pages)
        raise AssertionError(number)


class Allocator(RuleBasedStateMachine):
    """alloc, free, release and mark_unused in any order; used frames stay what they are."""

    @initialize(chunk=st.integers(1, 70), limit=st.integers(5, 120))
    def start(self, chunk: int, limit: int) -> None:
        machine.reset()
        clear(memory.frames)
        clear(memory_pressure.statistics)
        self.states = Bytes()
        memory.start_allocator(address(self.states), FIRST, FRAMES)
        self.hypervisor = FakeHypervisor(chunk, limit)
        machine.on_hypercall = self.hypervisor.answer
        self.used: list[int] = []

    @rule(count=st.integers(1, 40))
    def alloc(self, count: int) -> None:
        for _ in range(count):
            frame = memory.alloc()
            if frame == 0:
                assert len(self.hypervisor.backed) == min(self.hypervisor.limit, FRAMES - FIRST)
                break
            assert frame not in self.used
            assert frame in self.hypervisor.backed
            self.used.append(frame)

    @rule(which=st.integers(0, 1000))
    def free(self, which: int) -> None:
        if self.used:
            memory.free(self.used.pop(which % len(self.used)))

    @rule(wanted=st.integers(0, 60))
    def pressure(self, wanted: int) -> None:
        free = memory.frames.free
        given = memory_pressure.release(wanted)
        assert given == min(wanted, free)

    @rule()
    def unused(self) -> None:
        assert memory.mark_unused() == memory.frames.free

    @invariant()
    def used_frames_are_backed(self) -> None:
        if hasattr(self, "hypervisor"):
            assert set(self.used) <= self.hypervisor.backed
            assert memory.frames.free + memory.frames.absent + len(self.used) == FRAMES - FIRST
            assert memory.frames.free == len(self.hypervisor.backed - set(self.used))


TestAllocator = Allocator.TestCase
TestAllocator.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
