"""Who gives, who waits and who is stopped when frames run short."""
from __future__ import annotations

from typing import Callable, Iterator

import pytest

from hypervisor import clock, timers
from hypervisor.abi import EVENT_MEMORY_PRESSURE, Error, PageState
from hypervisor.addresses import PAGE_SIZE, Gfn, Gpa, Hfn, Hpa
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.cpu import cpus
from hypervisor.memory import backing, frames, guest_memory, ledger, nested
from hypervisor.memory.ledger import Kind
from hypervisor.model import WORK_FRAMES, TimerKind, Vcpu, VcpuState, Vm
from hypervisor.paging import page_state, pressure, release
from hypervisor.sched.wake import wake
from hypervisor.status import Status
from tests.memory.world import World, vcpu_of

LIMIT = 160  # low watermark 10, high 20


@pytest.fixture
def world() -> Iterator[World]:
    made = World(1200, limit_frames=LIMIT)
    yield made
    made.check()
    made.close()


def fill(vm: Vm, first: int, count: int) -> int:
    """Touch pages until one is refused; how many have a frame."""
    for gfn in range(first, first + count):
        if backing.back(vm, Gfn(gfn)) != Status.OK:
            return gfn - first
    return count


def state_of(vcpu: Vcpu) -> VcpuState:
    return VcpuState(vcpu.state)


def run_timers() -> None:
    """What the run loop does for WORK_INTERRUPT."""
    while (timer := timers.expire(cpus[0])) is not None:
        assert timer.kind == TimerKind.FRAME_WAIT and timer.vcpu is not None
        wake(timer.vcpu)


def test_nothing_is_asked_while_there_is_plenty(world: World) -> None:
    vm = world.vm(1000)
    assert fill(vm, 0, 140) == 140
    assert vm.pressure_frames == 0 and vcpu_of(vm).pending_events == 0


def test_unused_goes_before_volatile_and_cold_never(world: World) -> None:
    vm = world.vm(1000)
    fill(vm, 0, 150)
    assert page_state.set_state(vm, 0, 10, PageState.COLD) == 10
    assert page_state.set_state(vm, 10, 20, PageState.VOLATILE) == 20
    assert page_state.set_state(vm, 30, 15, PageState.UNUSED) == 15
    assert fill(vm, 200, 1) == 1
    gone = [gfn for gfn in range(150) if nested.lookup(vm, Gpa(gfn * PAGE_SIZE)) == 0]
    assert gone == list(range(30, 40))  # up to the high watermark
    assert vm.pressure_frames == 0
    assert fill(vm, 300, 30) == 30
    gone = [gfn for gfn in range(150) if nested.lookup(vm, Gpa(gfn * PAGE_SIZE)) == 0]
    assert set(range(30, 45)) < set(gone) <= set(range(10, 45))
    assert page_state.get(vm, Gfn(30)) == page_state.RELEASED | PageState.UNUSED
    assert backing.back(vm, Gfn(30)) == Status.OK and page_state.get(vm, Gfn(30)) == PageState.STABLE


def test_the_one_above_its_share_is_asked_for_more_and_the_other_still_served(world: World) -> None:
    greedy, modest = world.vm(1000, weight=1), world.vm(1000, weight=1)
    assert fill(modest, 0, 40) == 40
    assert fill(greedy, 0, 1000) == LIMIT - 40 - 10
    assert greedy.pressure_frames > modest.pressure_frames > 0
    assert vcpu_of(greedy).pending_events == vcpu_of(modest).pending_events == EVENT_MEMORY_PRESSURE
    assert fill(modest, 40, 1000) == 10  # the last frames are kept for the one within its entitlement
    assert frames.available() == 0
    owed = modest.pressure_frames
    assert release.mem_release(greedy, 0, 8) == 8  # the last frames it owed, and more
    assert greedy.pressure_frames == 0 and modest.pressure_frames == owed
    assert fill(modest, 50, 5) == 5
    assert greedy.pressure_frames > 0  # it is asked again, though the other has not answered


def test_who_cannot_hear_is_not_asked(world: World) -> None:
    """A stock system has no events: one pending would keep its HLT from sleeping."""
    stock, guest = world.vm(1000), world.vm(1000)
    vcpu_of(stock).info_valid = False
    fill(stock, 0, 100)
    fill(guest, 0, 100)
    assert stock.pressure_frames == 0 and vcpu_of(stock).pending_events == 0
    assert guest.pressure_frames > 0


def test_debts_end_with_the_pressure(world: World) -> None:
    one, other = world.vm(1000), world.vm(1000)
    fill(one, 0, 80)
    fill(other, 0, 80)
    assert one.pressure_frames > 0 and other.pressure_frames > 0
    assert release.mem_release(one, 0, 40) == 40
    assert one.pressure_frames == 0 and other.pressure_frames == 0


def test_shares_follow_weights(world: World) -> None:
    light, heavy = world.vm(1000, weight=1), world.vm(1000, weight=3)
    assert pressure.entitlement(light) == LIMIT // 4 and pressure.entitlement(heavy) == 3 * LIMIT // 4
    fill(heavy, 0, 75)
    fill(light, 0, 80)
    assert light.pressure_frames > 2 * heavy.pressure_frames > 0


def test_a_vcpu_sleeps_until_frames_return(world: World) -> None:
    one, other = world.vm(1000), world.vm(1000)
    vcpu = vcpu_of(one)
    fill(other, 0, 80)
    fill(one, 0, 80)
    assert frames.available() == 0
    assert backing.back_for(vcpu, one, Gfn(900)) == Status.WAIT
    assert state_of(vcpu) is VcpuState.WAITING and pressure.state.waiting == 1
    assert release.mem_populate(vcpu_of(other), 500, 4) == release.MUST_WAIT
    pressure.stop_waiting(vcpu_of(other))
    assert release.mem_release(other, 0, 40) == 40
    assert state_of(vcpu) is VcpuState.RUNNABLE
    assert backing.back_for(vcpu, one, Gfn(900)) == Status.OK
    assert vcpu.frame_wait_until == 0 and pressure.state.waiting == 0
    assert timers.next_deadline(cpus[0]) == timers.NEVER


def test_waiting_in_vain_ends(world: World) -> None:
    one, other = world.vm(1000), world.vm(1000)
    vcpu = vcpu_of(one)
    fill(other, 0, 80)
    fill(one, 0, 80)
    assert backing.back_for(vcpu, one, Gfn(900)) == Status.WAIT
    machine.tsc += clock.ticks_of(pressure.WAIT_LIMIT_NS) // 2
    run_timers()
    assert state_of(vcpu) is VcpuState.WAITING
    machine.tsc += clock.ticks_of(pressure.WAIT_LIMIT_NS)
    run_timers()
    assert state_of(vcpu) is VcpuState.RUNNABLE
    assert backing.back_for(vcpu, one, Gfn(900)) == Status.NO_MEMORY
    assert pressure.state.waiting == 0
    assert release.mem_populate(vcpu, 900, 1) == release.MUST_WAIT
    machine.tsc += clock.ticks_of(pressure.WAIT_LIMIT_NS)
    run_timers()
    assert release.mem_populate(vcpu, 900, 1) == -Error.NO_MEMORY


def test_the_end_of_a_vm_feeds_the_waiting(world: World) -> None:
    one, other = world.vm(1000), world.vm(1000)
    fill(other, 0, 80)
    fill(one, 0, 80)
    assert backing.back_for(vcpu_of(one), one, Gfn(900)) == Status.WAIT
    nested.destroy(other)
    pressure.frames_returned()
    assert state_of(vcpu_of(one)) is VcpuState.RUNNABLE
    assert backing.back_for(vcpu_of(one), one, Gfn(900)) == Status.OK


def test_what_a_hypercall_uses_is_not_taken(world: World) -> None:
    """A handler pins two pages; the guest has called the first UNUSED, and taking it would serve the second for ever."""
    vm = world.vm(1000)
    fill(vm, 0, 1000)
    page_state.set_state(vm, 0, 1, PageState.UNUSED)
    vcpu = vcpu_of(vm)
    assert guest_memory.pin(vcpu, Gpa(0), 8, True) == Status.OK
    assert guest_memory.pin(vcpu, Gpa(900 * PAGE_SIZE), 8, True) == Status.WAIT
    assert guest_memory.host_address(vm, Gpa(0)) != 0


def test_calls_are_bounded(world: World) -> None:
    vm = world.vm(5000)
    assert release.mem_populate(vcpu_of(vm), 0, 5000) == release.POPULATE_CHUNK
    assert release.mem_release(vm, 0, 5000) == release.RELEASE_CHUNK
    assert page_state.set_state(vm, 0, 5000, PageState.UNUSED) == page_state.STATE_CHUNK
    assert release.mem_release(vm, 5000, 0) == 0 and release.mem_populate(vcpu_of(vm), 5000, 0) == 0
    assert vm.released_frames == release.POPULATE_CHUNK


def test_calls_are_bounded_while_memory_is_short(world: World) -> None:
    """A scan of page states is long enough for one call: with two, a guest could make any call's path longer."""
    vm = world.vm(1000)
    fill(vm, 0, LIMIT - 20)
    page_state.set_state(vm, 0, 100, PageState.UNUSED)
    assert release.mem_populate(vcpu_of(vm), 500, 100) == 1


def test_ranges_end_where_the_memory_ends(world: World) -> None:
    vm, most = world.vm(100), (1 << 64) - 1
    for first, count in ((100, 1), (99, 2), (0, 101), (101, 0), (most, 1), (most, 2), (1, most), (most, most)):
        assert release.mem_release(vm, first, count) == -Error.BAD_ADDRESS
        assert release.mem_populate(vcpu_of(vm), first, count) == -Error.BAD_ADDRESS
        assert page_state.set_state(vm, first, count, PageState.UNUSED) == -Error.BAD_ADDRESS
    for first, count in ((100, 0), (99, 1), (0, 0)):
        assert release.mem_release(vm, first, count) == count
        assert release.mem_populate(vcpu_of(vm), first, count) == count
        assert page_state.set_state(vm, first, count, PageState.UNUSED) == count
    for state in (4, 256, most):
        assert page_state.set_state(vm, 0, 1, state) == -Error.BAD_ARGUMENT


def test_a_frame_in_flight_outlives_its_vm(world: World) -> None:
    """A device still writes to it: it is not given to anybody before the transfer is done."""
    vm = world.vm(100)
    fill(vm, 0, 20)
    hfn = Hfn(guest_memory.host_address(vm, Gpa(7 * PAGE_SIZE)) >> 12)
    assert ledger.pin(hfn) and ledger.pin(hfn)
    nested.destroy(vm)
    assert ledger.kind_of(hfn) == Kind.QUARANTINED
    ledger.unpin(hfn)
    ledger.settle(30)
    assert ledger.kind_of(hfn) == Kind.QUARANTINED and ledger.book.first_quarantined == ledger.book.last_quarantined == hfn
    ledger.unpin(hfn)
    assert ledger.settle(30) == 1 and ledger.kind_of(hfn) == Kind.FREE
    assert ledger.book.first_quarantined == ledger.book.last_quarantined == 0


@pytest.mark.parametrize("wrong", [
    lambda hfn, vm: ledger.release(hfn), lambda hfn, vm: ledger.share(hfn), lambda hfn, vm: ledger.unpin(hfn),
    lambda hfn, vm: ledger.quarantine(hfn, vm, Gfn(8)), lambda hfn, vm: frames.free(Hpa(hfn << 12)),
    lambda hfn, vm: nested.map(vm, Gfn(8), hfn, nested.MAP_WRITE), lambda hfn, vm: ledger.claim(hfn, Kind.HYPERVISOR, 0, 0),
    lambda hfn, vm: nested.map(vm, Gfn(8), Hfn(vm.nested_root >> 12), 0), lambda hfn, vm: ledger.entry_of(Hfn(1 << 40))])
def test_wrong_transitions_are_our_bugs(world: World, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Hfn, Vm], object]) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    monkeypatch.setattr(ledger, "panic", refuse)
    monkeypatch.setattr(nested, "panic", refuse)
    vm = world.vm(100)
    fill(vm, 0, 8)
    hfn = Hfn(guest_memory.host_address(vm, Gpa(7 * PAGE_SIZE)) >> 12)
    with pytest.raises(AssertionError, match="^(ledger|nested): "):
        wrong(hfn, vm)


def go_on_until_done() -> int:
    """What the run loop does for WORK_FRAMES; how many pieces it took."""
    pieces = 0
    while cpus[0].work & WORK_FRAMES:
        cpus[0].work &= ~WORK_FRAMES
        pressure.go_on()
        pieces += 1
    return pieces


def test_a_crowd_is_asked_and_woken_in_pieces() -> None:
    """More VMs than one path may look at: all are reached, later ones by WORK_FRAMES, and nobody twice."""
    crowd, each = 80, 8
    world = World(2000, limit_frames=crowd * each)
    vms = [world.vm(1000) for _ in range(crowd)]
    fill(vms[0], 0, each // 2)
    for vm in vms[1:]:
        fill(vm, 0, each)
    assert not any(vm.pressure_frames for vm in vms) and cpus[0].work & WORK_FRAMES  # their uses are still being summed up
    pieces = go_on_until_done()
    assert pieces >= crowd // pressure.TELLS_A_PIECE and all(vm.pressure_frames for vm in vms)

    fill(vms[-1], 100, frames.available())
    waiting = [vm for vm in vms[:60] if backing.back_for(vcpu_of(vm), vm, Gfn(900)) == Status.WAIT]
    assert len(waiting) == pressure.state.waiting > pressure.TELLS_A_PIECE
    go_on_until_done()
    assert release.mem_release(vms[-1], 0, 4) == 4
    awake = [vm for vm in waiting if state_of(vcpu_of(vm)) is VcpuState.RUNNABLE]
    assert len(awake) == pressure.TELLS_A_PIECE
    go_on_until_done()
    assert all(state_of(vcpu_of(vm)) is VcpuState.RUNNABLE for vm in waiting)
    world.check()
    world.close()
