"""Random histories of several VMs over frames, ledger, nested tables, release, page states and pressure, against a model.

After each step the full ledger check holds, each frame belongs to one page of one VM at most, and no frame is lost.
"""
from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hypervisor.abi import Error, PageState
from hypervisor.addresses import PAGE_SIZE, Gfn, Gpa, Hfn, Hpa
from hypervisor.arch_x86.intrinsics import store_u64
from hypervisor.memory import backing, frames, guest_memory, ledger, nested
from hypervisor.memory.ledger import Kind
from hypervisor.model import Vm, VmState
from hypervisor.paging import page_state, pressure, release
from hypervisor.status import Status
from tests.memory.world import World, vcpu_of

FRAMES = 700
TAKEABLE = (PageState.UNUSED, PageState.VOLATILE)
U64 = st.integers(0, (1 << 64) - 1)
FIRST = st.one_of(st.integers(0, 100), st.integers(0, 4200))


class Guest:
    """What a test knows of one VM: the mark it wrote last into each page, and the state it gave it."""

    def __init__(self, vm: Vm, pages: int) -> None:
        self.vm, self.pages = vm, pages
        self.marks: dict[int, int] = {}
        self.states: dict[int, int] = {}


class Memory(RuleBasedStateMachine):
    guests: list[Guest]

    @initialize(limit=st.sampled_from([0, 200, 48]), intel=st.booleans())
    def start(self, limit: int, intel: bool) -> None:
        self.world = World(FRAMES, limit, intel)
        self.guests = []
        self.own: list[tuple[int, int]] = []  # (hpa, frames) the hypervisor holds
        self.mark = 1

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()

    def pick(self, number: int) -> Guest:
        return self.guests[number % len(self.guests)]

    # VMs come and go
    @rule(pages=st.sampled_from([7, 300, 513, 4097]), weight=st.integers(1, 5))
    @precondition(lambda self: len(self.guests) < 4 and frames.free_count() > 40)
    def create(self, pages: int, weight: int) -> None:
        self.guests.append(Guest(self.world.vm(pages, weight), pages))

    @rule(which=st.integers(0, 3))
    @precondition(lambda self: self.guests)
    def destroy(self, which: int) -> None:
        guest = self.pick(which)
        pressure.stop_waiting(vcpu_of(guest.vm))
        nested.destroy(guest.vm)
        guest.vm.state = VmState.ENDED
        self.guests.remove(guest)
        pressure.frames_returned()

    # What guests do
    @rule(which=st.integers(0, 3), gfn=U64, dense=st.integers(0, 4200), near=st.booleans())
    @precondition(lambda self: self.guests)
    def touch(self, which: int, gfn: int, dense: int, near: bool) -> None:
        guest = self.pick(which)
        gfn = dense if near else gfn % (1 << 52)
        before = nested.lookup(guest.vm, Gpa(gfn * PAGE_SIZE))
        status = backing.back(guest.vm, Gfn(gfn))
        if gfn >= guest.pages:
            assert status == Status.BAD_ADDRESS
            return
        if status == Status.OK:
            self.fresh(guest, gfn, before)
            self.write(guest, gfn)
        else:
            assert status == Status.NO_MEMORY and before == 0
            assert frames.available() <= pressure.low_watermark()

    @rule(which=st.integers(0, 3), first=FIRST, count=st.integers(50, 400))
    @precondition(lambda self: self.guests)
    def touch_many(self, which: int, first: int, count: int) -> None:
        """A guest that takes what it can get: memory becomes short."""
        guest = self.pick(which)
        for gfn in range(first, min(first + count, guest.pages)):
            before = nested.lookup(guest.vm, Gpa(gfn * PAGE_SIZE))
            if backing.back(guest.vm, Gfn(gfn)) != Status.OK:
                break
            self.fresh(guest, gfn, before)

    def fresh(self, guest: Guest, gfn: int, before: int) -> None:
        """A page that had no frame reads zero and is STABLE."""
        if before == 0:
            assert self.world.bytes_of(guest.vm, gfn) == bytes(PAGE_SIZE)
            assert page_state.get(guest.vm, Gfn(gfn)) == PageState.STABLE
            guest.marks[gfn] = 0
            guest.states[gfn] = PageState.STABLE

    def write(self, guest: Guest, gfn: int) -> None:
        store_u64(guest_memory.host_address(guest.vm, Gpa(gfn * PAGE_SIZE)), self.mark)
        guest.marks[gfn] = self.mark
        self.mark += 1

    @rule(which=st.integers(0, 3), first=FIRST, count=st.integers(0, 300))
    @precondition(lambda self: self.guests)
    def give_back(self, which: int, first: int, count: int) -> None:
        guest = self.pick(which)
        done = release.mem_release(guest.vm, first, count)
        if first + count > guest.pages:
            assert done == -Error.BAD_ADDRESS
            return
        assert done == min(count, release.RELEASE_CHUNK)
        for gfn in range(first, first + done):
            assert nested.lookup(guest.vm, Gpa(gfn * PAGE_SIZE)) == 0
            guest.marks.pop(gfn, None)
            guest.states.pop(gfn, None)

    @rule(which=st.integers(0, 3), first=FIRST, count=st.integers(0, 300))
    @precondition(lambda self: self.guests)
    def populate(self, which: int, first: int, count: int) -> None:
        guest = self.pick(which)
        vcpu = vcpu_of(guest.vm)
        before = {gfn: nested.lookup(guest.vm, Gpa(gfn * PAGE_SIZE)) for gfn in range(first, first + count)}
        done = release.mem_populate(vcpu, first, count)
        if first + count > guest.pages:
            assert done == -Error.BAD_ADDRESS
            return
        if done < 0:
            assert done == release.MUST_WAIT and pressure.state.waiting > 0
            pressure.stop_waiting(vcpu)
            done = 0
        for gfn in range(first, first + done):
            if before[gfn] == 0:
                self.fresh(guest, gfn, 0)

    @rule(which=st.integers(0, 3), first=FIRST, count=st.integers(0, 600), state=st.sampled_from([0, 1, 1, 1, 2, 2, 3, 3, 4]))
    @precondition(lambda self: self.guests)
    def declare(self, which: int, first: int, count: int, state: int) -> None:
        guest = self.pick(which)
        done = page_state.set_state(guest.vm, first, count, state)
        if state > PageState.COLD:
            assert done == -Error.BAD_ARGUMENT
        elif first + count > guest.pages:
            assert done == -Error.BAD_ADDRESS
        else:
            assert done == count
            for gfn in range(first, first + count):
                if gfn in guest.marks:
                    guest.states[gfn] = state

    @rule(which=st.integers(0, 3), first=U64, count=U64, state=U64)
    @precondition(lambda self: self.guests)
    def hostile(self, which: int, first: int, count: int, state: int) -> None:
        """Arguments anywhere in 64 bits: errors or nothing, never beyond the VM's memory."""
        guest = self.pick(which)
        if first + count > guest.pages:
            assert release.mem_release(guest.vm, first, count) == -Error.BAD_ADDRESS
            assert release.mem_populate(vcpu_of(guest.vm), first, count) == -Error.BAD_ADDRESS
            assert page_state.set_state(guest.vm, first, count, state) < 0

    @rule(which=st.integers(0, 3), gfn=st.integers(0, 4200))
    @precondition(lambda self: self.guests)
    def pin(self, which: int, gfn: int) -> None:
        guest = self.pick(which)
        vcpu = vcpu_of(guest.vm)
        before = nested.lookup(guest.vm, Gpa(gfn * PAGE_SIZE))
        status = guest_memory.pin(vcpu, Gpa(gfn * PAGE_SIZE), PAGE_SIZE, True)
        assert (status == Status.BAD_ADDRESS) == (gfn >= guest.pages)
        if status == Status.OK:
            self.fresh(guest, gfn, before)
            guest.states[gfn] = PageState.STABLE
        elif status == Status.WAIT:
            pressure.stop_waiting(vcpu)

    # What the hypervisor does
    @rule(count=st.integers(1, 20))
    def take(self, count: int) -> None:
        hpa = frames.alloc() if count == 1 else frames.alloc_contiguous(count)
        if hpa != 0:
            self.own.append((hpa, count))
            for number in range(count):
                assert ledger.kind_of(Hfn((hpa >> 12) + number)) == Kind.HYPERVISOR

    @rule(which=st.integers(0, 100))
    @precondition(lambda self: self.own)
    def give(self, which: int) -> None:
        hpa, count = self.own.pop(which % len(self.own))
        frames.free_contiguous(Hpa(hpa), count)

    @rule()
    def relieve(self) -> None:
        pressure.relieve()

    # What always holds
    @invariant()
    def ledger_holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    @invariant()
    def contents_hold(self) -> None:
        """Pages keep what was written, but for those whose guest has said that they need not."""
        seen: set[int] = set()
        for guest in getattr(self, "guests", []):
            assert guest.vm.private_frames <= max(frames.pool.limit, 0)
            for gfn in list(guest.marks):
                found = self.world.bytes_of(guest.vm, gfn)
                if found is None:
                    assert guest.states.get(gfn) in TAKEABLE, f"page {gfn:#x} of vm {guest.vm.id} is gone"
                    assert page_state.get(guest.vm, Gfn(gfn)) & page_state.RELEASED
                    del guest.marks[gfn]
                    guest.states.pop(gfn, None)
                    continue
                assert found[:8] == guest.marks[gfn].to_bytes(8, "little")
                hpa = guest_memory.host_address(guest.vm, Gpa(gfn * PAGE_SIZE))
                assert hpa not in seen
                seen.add(hpa)


Memory.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None,
                                    suppress_health_check=list(HealthCheck))
TestMemory = Memory.TestCase
