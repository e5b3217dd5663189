"""The run loop of each host CPU: do what is owed, enter, decode, dispatch. Interrupts are off but while idle or polling.

The CPU holds the hypervisor's lock (lock.py) all the time but while it is in a guest or idle.
"""
from typing import Final

from hypervisor import (apic_bus, board, clock, crash, crash_commands, end_of_run, exits, inject, lock, model, operator, path_lengths, steal_time,
                        timers, vm, vm_config)
from hypervisor.abi import EVENT_TIMER
from hypervisor.arch_x86 import backend, extended_state, host_interrupts
from hypervisor.arch_x86.vm_exit import Cause
from hypervisor.block import scheduler as disk_scheduler
from hypervisor.build_options import DEBUG, MEASURE_PATHS
from hypervisor.channel import link
from hypervisor.events import raise_event
from hypervisor.lang import apart, u32, u64, wrap_u32
from hypervisor.memory import ledger_check
from hypervisor.model import (WORK_CHANNEL, WORK_CONSOLE, WORK_CRASH, WORK_DISK, WORK_FPU, WORK_FRAMES, WORK_INJECT, WORK_INTERRUPT, WORK_LOOK, WORK_OF_VCPU, WORK_REAP, WORK_RESCHED, WORK_TLB, Cpu, Timer,
                              TimerKind, Vcpu, VcpuState, VmState)
from hypervisor.paging import pressure
from hypervisor.sched import account, policy, wake
from hypervisor.status import Status

REAP_PERIOD_NS: Final[u64] = 1_000_000  # between two pieces of what an ended VM leaves, while others want to run


def run(cpu: Cpu) -> None:
    """For ever; the lock is held. VMs have been made and started."""
    cpu.reap.kind = TimerKind.REAP
    cpu.work |= WORK_RESCHED | WORK_REAP
    while True:
        while cpu.work != 0:
            do_work(cpu)
        vcpu = cpu.vcpu
        if vcpu is None:
            backend.park(cpu)
            host_interrupts.idle(cpu)
            continue
        again = vcpu.restart
        if again and not is_ready(cpu, vcpu):
            continue
        while True:
            if not again:
                backend.enter(cpu, vcpu)
                backend.decode(vcpu, vcpu.exit)
                if cpu.work != 0 and is_late(vcpu):
                    break
            again = False
            if MEASURE_PATHS:
                path_lengths.begin()
            exits.dispatch(vcpu, vcpu.exit)
            if MEASURE_PATHS:
                path_lengths.end_exit(vcpu.exit.cause)
            if cpu.work != 0:  # only work changes the vCPU, or lets its exit be handled again
                break


@apart
def is_late(vcpu: Vcpu) -> bool:
    """Whether another CPU has stopped or paused the VM while this exit was under way: then it is handled when the VM goes on, if it
    ever does. An interrupt is the host's own."""
    owner = vcpu.vm
    assert owner is not None
    if owner.state == VmState.RUNNING or vcpu.exit.cause in (Cause.INTERRUPT, Cause.NMI):
        return False
    vcpu.restart = True
    return True


@apart
def is_ready(cpu: Cpu, vcpu: Vcpu) -> bool:
    """An exit is to be handled once more, or its next piece: other CPUs that wait for the lock, interrupts, and the work that they
    leave, come first."""
    breathe(cpu)
    if cpu.work != 0:
        return False
    backend.make_current(vcpu)
    vcpu.restart = False
    cpu.work |= WORK_INJECT  # put off until the exit is done with
    return True


def breathe(cpu: Cpu) -> None:
    """Between two pieces: other CPUs that wait for the lock come first, and interrupts are taken."""
    lock.give_way()
    if MEASURE_PATHS:
        path_lengths.begin()
    host_interrupts.poll(cpu)
    if MEASURE_PATHS:
        path_lengths.end_work(WORK_INTERRUPT)
        path_lengths.begin()


@apart
def do_work(cpu: Cpu) -> None:
    """The lowest bit of what is owed. What concerns a vCPU falls away when none is current."""
    bit: u32 = cpu.work & wrap_u32(0 - cpu.work)
    cpu.work = u32(cpu.work & ~bit)
    if MEASURE_PATHS:
        path_lengths.begin()
    do_bit(cpu, bit)
    if MEASURE_PATHS:
        path_lengths.end_work(bit)


def do_bit(cpu: Cpu, bit: u32) -> None:
    """One piece of work."""
    if bit == WORK_INTERRUPT:
        run_timers(cpu)
        return
    if bit == WORK_RESCHED:
        reschedule(cpu)
        return
    if bit & WORK_OF_VCPU != 0:
        vcpu = cpu.vcpu
        if vcpu is not None:
            work_for(cpu, vcpu, bit)
        return
    if bit == WORK_REAP:
        reap(cpu)
        return
    if bit == WORK_CONSOLE or bit == WORK_DISK or bit == WORK_CHANNEL:
        since = account.begin(cpu)
        if bit == WORK_DISK:
            since = disk_scheduler.turn(cpu)
        elif bit == WORK_CHANNEL:
            link.poll(cpu)
        else:
            operator.poll(cpu)
        account.end(cpu, since, None)
        return
    if bit == WORK_LOOK:
        breathe(cpu)
        apic_bus.look_some()
        return
    if bit == WORK_FRAMES:
        breathe(cpu)
        pressure.go_on()
        return
    if DEBUG and bit == WORK_CRASH:
        crash_commands.crash_here(cpu)


def work_for(cpu: Cpu, vcpu: Vcpu, bit: u32) -> None:
    """Work on the current vCPU."""
    match bit:
        case model.WORK_TLB:
            owner = vcpu.vm
            assert owner is not None
            vcpu.seen_epoch = owner.epoch
            backend.flush(cpu, vcpu)
            pressure.frames_settle()
        case model.WORK_FPU:
            switch_extended_state(cpu, vcpu)
        case model.WORK_INJECT:
            if not vcpu.restart:
                inject.deliver(vcpu)
        case _:
            pass


def run_timers(cpu: Cpu) -> None:
    """A timer that is due, at the expense of the vCPU that it serves, and a breath before the next: a thousand may be due at once."""
    since = account.begin(cpu)
    served: Vcpu | None = None
    timer = timers.expire(cpu)
    while timer is not None:
        run_timer(cpu, timer)
        served = timer.vcpu
        since = account.end(cpu, since, served)
        if timers.next_deadline(cpu) <= clock.now():
            if MEASURE_PATHS:
                path_lengths.end_work(WORK_INTERRUPT)
            cpu.work |= WORK_INTERRUPT
            breathe(cpu)
            return
        timer = timers.expire(cpu)
    account.end(cpu, since, served)


def run_timer(cpu: Cpu, timer: Timer) -> None:
    """One of them."""
    vcpu = timer.vcpu
    if timer.kind == TimerKind.SLICE:
        cpu.work |= WORK_RESCHED
    elif timer.kind == TimerKind.REAP:
        cpu.work |= WORK_REAP
    elif timer.kind == TimerKind.DISK:
        cpu.work |= WORK_DISK
    elif vcpu is None:
        return
    elif timer.kind == TimerKind.GUEST:
        raise_event(vcpu, EVENT_TIMER)
    elif timer.kind == TimerKind.PLATFORM:
        board.timer_expired(vcpu)
    elif timer.kind == TimerKind.APIC:
        apic_bus.timer_expired(vcpu)
    elif timer.kind == TimerKind.FRAME_WAIT:
        wake.wake(vcpu)
    elif timer.kind == TimerKind.CAP:
        owner = vcpu.vm
        assert owner is not None
        wake.refill(owner)


def reschedule(cpu: Cpu) -> None:
    """Charge the one that ran, and make the one that the policy picks current: maybe the same."""
    now = account.charge_running()
    previous = cpu.vcpu
    if previous is not None:
        put_back(previous, now)
    if DEBUG:
        ledger_check.in_turn()
        cpu.vcpu = None
        now = account.end(cpu, now, None)
    vcpu = policy.pick(cpu.id, now)
    changed = previous is None or vcpu is None or previous != vcpu
    if changed and previous is not None:
        leave(cpu, previous)
    cpu.vcpu = vcpu
    wake.ask(policy.stranded(now))
    if vcpu is None:
        timers.cancel(cpu.slice)
        if cpu.reap.heap_index != 0:
            cpu.work |= WORK_REAP  # nobody wants the time
        return
    vcpu.on_cpu = True
    if vcpu.woken_at != 0:
        vcpu.wakes += 1
        vcpu.wake_ticks += now - min(now, vcpu.woken_at)
        vcpu.woken_at = 0
    vcpu.entered_at = now
    ticks = policy.slice_of(vcpu, now)
    if ticks == policy.UNLIMITED:
        timers.cancel(cpu.slice)
    else:
        timers.arm(cpu, cpu.slice, now + ticks)
    cpu.work |= WORK_INJECT
    owner = vcpu.vm
    assert owner is not None
    if changed and vcpu.cpu != cpu:
        vcpu.cpu = cpu
        backend.migrate(cpu, vcpu)
    if changed or vcpu.tsc_offset != owner.tsc_offset:
        backend.switch_to(cpu, owner, vcpu)
        steal_time.entered(vcpu)
        vcpu.tsc_offset = owner.tsc_offset
        cpu.work |= WORK_FPU
    if vcpu.seen_epoch != owner.epoch:  # pages were unmapped since it ran last
        cpu.work |= WORK_TLB


def put_back(vcpu: Vcpu, now: u64) -> None:
    """One that ran: it waits again, if it may."""
    vcpu.on_cpu = False
    if may_run(vcpu):
        policy.requeue(vcpu, now)
    else:
        policy.dequeue(vcpu, now)
    owner = vcpu.vm
    assert owner is not None
    wake.await_refill(owner)


def leave(cpu: Cpu, vcpu: Vcpu) -> None:
    """All of its state goes from the CPU to memory: from now on another CPU may run it, or its VM be given back."""
    if cpu.fpu_owner == vcpu:
        extended_state.save(vcpu)
        cpu.fpu_owner = None
    backend.leave(cpu, vcpu)
    steal_time.left(vcpu)
    owner = vcpu.vm
    if owner is not None and owner.state in (VmState.ENDED, VmState.CRASHED, VmState.REBOOTING):
        cpu.work |= WORK_REAP


def may_run(vcpu: Vcpu) -> bool:
    """Is it to compete for the CPU?"""
    owner = vcpu.vm
    return vcpu.state == VcpuState.RUNNABLE and owner is not None and owner.state == VmState.RUNNING


def switch_extended_state(cpu: Cpu, vcpu: Vcpu) -> None:
    """FPU, XCR0, debug registers: load this vCPU's; the one that had the CPU before has saved its own when it left."""
    if cpu.fpu_owner != vcpu:
        extended_state.load(vcpu)
        cpu.fpu_owner = vcpu


def reap(cpu: Cpu) -> None:
    """One piece of what ended VMs leave behind, and of what is made anew, at nobody's expense. The next: at once if nobody runs,
    else after REAP_PERIOD_NS, so that the others run in between however large the VM was."""
    running = cpu.vcpu
    if running is None:
        breathe(cpu)  # there may be many pieces
    since = account.begin(cpu)
    timers.cancel(cpu.reap)
    done = reap_piece()
    now = account.end(cpu, since, None)
    if done:
        end_of_run.check(cpu)
    elif running is not None:
        timers.arm(cpu, cpu.reap, now + clock.ticks_of(REAP_PERIOD_NS))
    else:
        cpu.work |= WORK_REAP


def reap_piece() -> bool:
    """Of a crashed VM's dump, of a VM's end, of one that starts again, of the kernel of one that is made; True: there is no more."""
    emptied = vm.table.emptied
    if emptied is not None:
        if vm.create_vcpus_some(emptied) != Status.BUSY:
            vm.table.emptied = None
            vm_config.boot_again(emptied)
        return False
    if crash.dump_some():
        return False
    done = vm.reap_some()
    return vm.table.emptied is None and vm_config.load_some() and done
