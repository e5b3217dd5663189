"""What happens when frames for guests run short.

Below the low watermark: pages that guests declared UNUSED, then VOLATILE, are taken (reclaim.py); if that is not enough,
EVENT_MEMORY_PRESSURE asks guests for frames, each in proportion to what it uses per weight; a guest gives what it can spare, and
is asked again when it has given what it was asked. The last frames below the watermark go only to VMs within their
entitlement (their share of the pool by weight).
A vCPU that needs a frame and gets none sleeps until frames come back; after WAIT_LIMIT_NS it is told that there are none
(its handler then stops the VM or answers an error), so that a VM nobody can serve does not hang the others.
"""
from __future__ import annotations

from enum import IntEnum
from typing import Final

from hypervisor import clock, timers
from hypervisor.abi import EVENT_MEMORY_PRESSURE
from hypervisor.abi_channel import EventKind
from hypervisor.addresses import PAGE_SHIFT
from hypervisor.channel import events
from hypervisor.cpu import owe, this_cpu
from hypervisor.events import raise_event
from hypervisor.lang import i32, struct, u32, u64, wrap_u32, wrap_u64
from hypervisor.memory import frames
from hypervisor.memory.frames import min_u64
from hypervisor.memory.nested_walk import spaces
from hypervisor.model import WORK_FRAMES, TimerKind, Vcpu, VcpuState, Vm
from hypervisor.paging.reclaim import reclaim
from hypervisor.sched.wake import sleep, wake
from hypervisor.status import Status

LOW_SHIFT: Final = 4  # the low watermark is 1/16 of the pool,
USE_SHIFT: Final = 10  # fixed point of use per weight
HIGH_SHIFT: Final = 3  # the high one, up to which guests are asked, 1/8
WAIT_LIMIT_NS: Final = 3_000_000_000
LOOKS_A_PIECE: Final = 64  # at VMs; there may be a thousand
TELLS_A_PIECE: Final = 16  # VMs that are asked, or vCPUs woken; those of one VM at once


class Round(IntEnum):
    """What all VMs are being looked at for, a piece at a time."""

    NONE = 0
    SUM = 1  # what do they use?
    ASK = 2  # each for its part


@struct
class Pressure:
    """State of the pool."""

    waiting: u64  # vCPUs that sleep until frames come back
    told: bool  # the host has been told that memory is short
    round: Round
    place: u32  # in spaces.vms: who is next in that round
    wanted: u64  # frames, of all
    uses: u64  # per weight, of all so far
    wake_place: u32  # who is next to be woken,
    wake_left: u32  # and for how many places from there on somebody may have to be


state: Final = Pressure()


def low_watermark() -> u64:
    """Frames available below which guests are asked."""
    return frames.pool.limit >> LOW_SHIFT


def high_watermark() -> u64:
    """Frames available at which the pressure is over."""
    return frames.pool.limit >> HIGH_SHIFT


def entitlement(vm: Vm) -> u64:
    """Frames that a VM may always have: its share of the pool by weight, at most its memory."""
    weights: u64 = 0
    for place in range(spaces.count):
        other = spaces.vms[place]
        if other is not None:
            weights += other.weight
    if weights == 0:
        return 0
    return min_u64(frames.pool.limit * vm.weight // weights, vm.memory_bytes >> PAGE_SHIFT)


def may_take(vm: Vm) -> bool:
    """Whether this VM may have one more frame now. Fast while there is no pressure; else reclaims and asks first."""
    return frames.available() > low_watermark() or _may_take_under_pressure(vm)


def _may_take_under_pressure(vm: Vm) -> bool:
    """The slow half of may_take: make room, then give the last frames only to VMs within their entitlement."""
    if relieve() > low_watermark():
        return True
    return frames.available() != 0 and vm.private_frames < entitlement(vm)


def relieve() -> u64:
    """Take what guests said may go, and ask them for more if the pool is still low; frames available then. Bounded."""
    free: u64 = frames.available()
    high: u64 = high_watermark()
    if free < high:
        reclaim(high - free)
        free = frames.available()
    if free <= low_watermark():
        _ask(high - free)
    return free


def _ask(wanted: u64) -> None:
    """Raise the memory pressure event: every guest with events is asked for a part by its use per weight. One that still
    owes what it was asked before is left alone. The first VMs now, the others by WORK_FRAMES."""
    if state.round != Round.NONE:
        return
    if not state.told:
        state.told = True
        events.machine(EventKind.PRESSURE, u32(min(wanted, 0xFFFF_FFFF)))
    state.wanted = wanted
    state.uses = 0
    state.place = 0
    state.round = Round.SUM
    go_on()


def go_on() -> None:
    """A piece of asking and of waking; the next by WORK_FRAMES."""
    if state.wake_left != 0:
        _wake_some()
    if state.round == Round.SUM:
        _sum_some()
    if state.round == Round.ASK:
        _ask_some()
    if state.wake_left != 0 or state.round != Round.NONE:
        owe(WORK_FRAMES)


def _sum_some() -> None:
    end: u32 = min(state.place + LOOKS_A_PIECE, spaces.count)
    for place in range(state.place, end):
        vm = spaces.vms[place]
        if vm is not None and can_be_asked(vm):
            state.uses += use_per_weight(vm)
    state.place = end
    if end == spaces.count:
        state.place = 0
        state.round = Round.ASK if state.uses != 0 else Round.NONE


def _ask_some() -> None:
    end: u32 = min(state.place + LOOKS_A_PIECE, spaces.count)
    asked: u32 = 0
    while state.place < end and asked < TELLS_A_PIECE:
        vm = spaces.vms[state.place]
        state.place += 1
        if vm is not None and can_be_asked(vm) and vm.pressure_frames == 0:
            part: u64 = (state.wanted * use_per_weight(vm) + state.uses - 1) // state.uses
            ask_vm(vm, min_u64(part, vm.private_frames))
            asked += 1
    if state.place >= spaces.count:
        state.round = Round.NONE


def use_per_weight(vm: Vm) -> u64:
    """What a VM uses of the pool in relation to its weight."""
    return (vm.private_frames << USE_SHIFT) // vm.weight if vm.weight != 0 else 0


def can_be_asked(vm: Vm) -> bool:
    """Whether the guest listens to events and has memory."""
    first = vm.vcpus[0]
    return first is not None and first.info_valid and first.state != VcpuState.STOPPED and vm.private_frames != 0


def ask_vm(vm: Vm, wanted: u64) -> None:
    """Ask one guest, which can be asked, to release `wanted` frames."""
    first = vm.vcpus[0]
    vm.pressure_frames = wanted
    if first is not None:
        raise_event(first, EVENT_MEMORY_PRESSURE)


def recovered() -> None:
    """The pool is above the high watermark: nobody owes anything."""
    if state.told:
        state.told = False
        events.machine(EventKind.RELIEVED, 0)
    state.round = Round.NONE
    for place in range(spaces.count):
        vm = spaces.vms[place]
        if vm is not None:
            vm.pressure_frames = 0


def given(vm: Vm, count: u64) -> None:
    """A guest has released `count` frames: it owes so many less, and those who wait may try again."""
    vm.pressure_frames -= min_u64(vm.pressure_frames, count)
    frames_returned()


def frames_settle() -> None:
    """A CPU has dropped its translations: frames in quarantine for it may be taken now."""
    if state.waiting != 0:
        frames_returned()


def frames_returned() -> None:
    """Frames came back to the pool: wake every vCPU that waits for one, the first now. Also to be called after a VM's destruction."""
    if frames.available() >= high_watermark():
        recovered()
    if state.waiting != 0:
        state.wake_left = spaces.count
        go_on()


def _wake_some() -> None:
    looked: u32 = 0
    woken: u32 = 0
    while state.wake_left != 0 and looked < LOOKS_A_PIECE and woken < TELLS_A_PIECE:
        if state.wake_place >= spaces.count:
            state.wake_place = 0
        vm = spaces.vms[state.wake_place]
        state.wake_place += 1
        state.wake_left -= 1
        looked += 1
        if vm is not None and vm.frame_waiters != 0:
            woken += _wake_all(vm)


def _wake_all(vm: Vm) -> u32:
    """Those of one VM that wait for frames; how many."""
    woken: u32 = 0
    for vcpu in vm.vcpus:
        if vcpu is not None and vcpu.frame_wait_until != 0 and vcpu.state == VcpuState.WAITING:
            wake(vcpu)
            woken += 1
    return woken


def wait(vcpu: Vcpu) -> Status:
    """Let a vCPU sleep until frames come back. WAIT: its handler returns Outcome.WAIT; NO_MEMORY: it has waited in vain."""
    now: u64 = clock.now()
    if vcpu.frame_wait_until == 0:
        vcpu.frame_wait_until = now + clock.ticks_of(WAIT_LIMIT_NS)
        vcpu.frame_wait_timer.kind = TimerKind.FRAME_WAIT
        vcpu.frame_wait_timer.vcpu = vcpu
        _count_waiting(vcpu, 1)
        timers.arm(this_cpu(), vcpu.frame_wait_timer, vcpu.frame_wait_until)
    elif now >= vcpu.frame_wait_until:
        stop_waiting(vcpu)
        return Status.NO_MEMORY
    sleep(vcpu, VcpuState.WAITING)
    return Status.WAIT


def stop_waiting(vcpu: Vcpu) -> None:
    """The vCPU has its frame, or will not get one, or its VM ends."""
    if vcpu.frame_wait_until != 0:
        vcpu.frame_wait_until = 0
        timers.cancel(vcpu.frame_wait_timer)
        _count_waiting(vcpu, -1)


def _count_waiting(vcpu: Vcpu, more: i32) -> None:
    vm = vcpu.vm
    assert vm is not None
    state.waiting = wrap_u64(state.waiting + more)
    vm.frame_waiters = wrap_u32(vm.frame_waiters + more)
