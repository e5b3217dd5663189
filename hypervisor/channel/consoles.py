"""Guests' consoles on the channel: what a guest prints waits in a ring until the host takes it, what the host types is counted.

Until the host opens a console the ring keeps the latest output. Once it has, nothing is thrown away for a PV guest: its call
waits for room, for WAIT_LIMIT_NS; then the host is taken for gone and the console closed. A UART cannot wait: what finds no room
is lost and counted.
"""
from typing import Final

from hypervisor import clock, timers
from hypervisor.cpu import owe, this_cpu
from hypervisor.lang import u8, u32, u64, wrap_u32
from hypervisor.model import (CONSOLE_INPUT_BYTES, CONSOLE_OUTPUT_BYTES, WORK_CHANNEL, ConsoleBuffer, TimerKind, Vcpu, VcpuState, Vm)
from hypervisor.sched.wake import sleep, wake

WAIT_LIMIT_NS: Final[u64] = 2_000_000_000
CREDIT_STEP: Final = 64  # bytes read by the guest that are worth a frame
CREDIT_MOST: Final = 1 << 30


def put(vm: Vm, byte: u8) -> None:
    """One byte of output."""
    gathered = vm.console
    if used(gathered) == CONSOLE_OUTPUT_BYTES:
        if gathered.opened:
            gathered.output_lost += 1
            return
        gathered.output_tail = wrap_u32(gathered.output_tail + 1)
    gathered.output[gathered.output_head % CONSOLE_OUTPUT_BYTES] = byte
    gathered.output_head = wrap_u32(gathered.output_head + 1)
    if gathered.opened:
        owe(WORK_CHANNEL)


def used(gathered: ConsoleBuffer) -> u32:
    """Bytes in the output ring."""
    return wrap_u32(gathered.output_head - gathered.output_tail)


def room(vm: Vm) -> u64:
    """Bytes of output that would not be lost; all there is while the host has not opened the console."""
    gathered = vm.console
    return CONSOLE_OUTPUT_BYTES - used(gathered) if gathered.opened else CONSOLE_OUTPUT_BYTES


def wait(vcpu: Vcpu, vm: Vm) -> bool:
    """There is no room: True: the vCPU sleeps until there is, return Outcome.WAIT. False: it has waited in vain, the console is
    closed now."""
    now: u64 = clock.now()
    if vcpu.console_wait_until == 0:
        vcpu.console_wait_until = now + clock.ticks_of(WAIT_LIMIT_NS)
    elif now >= vcpu.console_wait_until:
        close(vm)
        return False
    # Each time: a frame that the call waited for in between has used the timer.
    vcpu.frame_wait_timer.kind = TimerKind.FRAME_WAIT
    vcpu.frame_wait_timer.vcpu = vcpu
    timers.arm(this_cpu(), vcpu.frame_wait_timer, vcpu.console_wait_until)
    sleep(vcpu, VcpuState.WAITING)
    return True


def stop_waiting(vcpu: Vcpu) -> None:
    """There is room, or the VM ends."""
    if vcpu.console_wait_until != 0:
        vcpu.console_wait_until = 0
        timers.cancel(vcpu.frame_wait_timer)


def allow(vm: Vm, count: u32) -> None:
    """The host takes `count` bytes more; the first time it opens the console, and is told what it may send."""
    gathered = vm.console
    if not gathered.opened:
        gathered.opened = True
        gathered.credit = 0
        gathered.owed = CONSOLE_INPUT_BYTES - 1
    gathered.credit = u32(min(u64(gathered.credit) + count, CREDIT_MOST))
    owe(WORK_CHANNEL)


def close(vm: Vm) -> None:
    """The host takes no more; who waits for it goes on."""
    gathered = vm.console
    gathered.opened = False
    gathered.credit = 0
    gathered.owed = 0
    gathered.from_host = 0
    wake_writers(vm)


def wake_writers(vm: Vm) -> None:
    """There is room."""
    for index in range(vm.vcpu_count):
        vcpu = vm.vcpus[index]
        if vcpu is not None and vcpu.console_wait_until != 0 and vcpu.state == VcpuState.WAITING:
            wake(vcpu)


def input_read(vm: Vm) -> None:
    """The guest has read a byte; the host is told when that makes some room."""
    gathered = vm.console
    if gathered.opened and gathered.from_host != 0:
        gathered.from_host -= 1
        gathered.owed += 1
        if credit_due(gathered):
            owe(WORK_CHANNEL)


def credit_due(gathered: ConsoleBuffer) -> bool:
    """Is it worth a frame to tell the host that it may send more?"""
    return gathered.owed >= CREDIT_STEP or (gathered.owed != 0 and gathered.from_host == 0)


def sendable(vm: Vm) -> u32:
    """Bytes that could be sent now."""
    gathered = vm.console
    return u32(min(used(gathered), gathered.credit)) if gathered.opened else u32(0)
