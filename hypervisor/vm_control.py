"""What the operator may do to a VM, by the prompt or by the channel: pause, resume, stop, reboot, destroy.

While a VM is paused its time stands still: its TSC offset, guest time and the deadlines of its timers move on by the length of
the pause, and KVM's clock tells a stock guest that it was stopped.
"""
from typing import Final

from hypervisor import apic_bus, clock, guest_console, kick, log, msrs, timers, vm
from hypervisor.abi_channel import EventKind
from hypervisor.addresses import Gpa
from hypervisor.channel import events
from hypervisor.cpu import this_cpu
from hypervisor.devices import kvm_clock
from hypervisor.lang import offsetof, u64, wrap_u64
from hypervisor.memory import guest_memory
from hypervisor.model import WORK_RESCHED, Vcpu, VcpuState, Vm, VmState
from hypervisor.sched import policy, wake
from hypervisor.status import Status
from hypervisor.virtio import service

FLAGS_AT: Final[u64] = offsetof(kvm_clock.TimeInfo, "flags")


def pause(machine: Vm) -> Status:
    """Keep a running VM from the CPU, its time with it. BAD_ARGUMENT: it does not run."""
    if machine.state != VmState.RUNNING:
        return Status.BAD_ARGUMENT
    machine.state = VmState.PAUSED
    machine.paused_at = clock.now()
    for vcpu in machine.vcpus:
        if vcpu is not None:
            vcpu.timer_held = vcpu.timer.heap_index != 0
            timers.cancel(vcpu.timer)
            timers.cancel(vcpu.apic_timer)
            if vcpu.on_cpu:
                kick.owe_to_its(vcpu, WORK_RESCHED)  # it leaves when it has been charged
            else:
                policy.dequeue(vcpu, machine.paused_at)
    log.info(f"vm '{vm.name(machine)}' paused")
    events.happened(machine, EventKind.PAUSED, 0, "")
    return Status.OK


def resume(machine: Vm) -> Status:
    """Let a paused VM go on where it was. BAD_ARGUMENT: it is not paused."""
    if machine.state != VmState.PAUSED or machine.paused_at == 0:
        return Status.BAD_ARGUMENT
    lost: u64 = clock.now() - machine.paused_at
    machine.paused_at = 0
    machine.started_at += lost
    machine.tsc_offset = wrap_u64(machine.tsc_offset - lost)
    machine.state = VmState.RUNNING
    for vcpu in machine.vcpus:
        if vcpu is not None:
            if vcpu.timer_held:
                timers.arm(this_cpu(), vcpu.timer, vcpu.timer.deadline + lost)
            apic_bus.arm(vcpu)
            say_stopped(machine, vcpu)
            if vcpu.on_cpu:
                kick.owe_to_its(vcpu, WORK_RESCHED)  # it has not left yet: it gets the new TSC offset
            elif vcpu.state == VcpuState.RUNNABLE:
                wake.compete(machine, vcpu)
    if guest_console.has_input(machine):
        service.typed(machine)
    log.info(f"vm '{vm.name(machine)}' resumed after {clock.ns_of(lost) // 1_000_000} ms")
    events.happened(machine, EventKind.RESUMED, 0, "")
    return Status.OK


def say_stopped(machine: Vm, vcpu: Vcpu) -> None:
    """Tell a guest that reads KVM's clock that it was stopped, so that its watchdogs do not take the pause for a hang."""
    place: u64 = vcpu.kept.misc_msr[msrs.SYSTEM_TIME_SLOT]
    if place & kvm_clock.SYSTEM_TIME_ENABLE != 0:
        structure: u64 = place & ~u64(kvm_clock.SYSTEM_TIME_ENABLE)
        # A page that has no frame any more has no reader either.
        guest_memory.write_u8(machine, Gpa(structure + FLAGS_AT), kvm_clock.TSC_STABLE_BIT | kvm_clock.GUEST_STOPPED_BIT)


def stop(machine: Vm) -> Status:
    """End a VM. BAD_ARGUMENT: it has ended."""
    if not is_alive(machine):
        return Status.BAD_ARGUMENT
    machine.state = VmState.ENDED
    log.info(f"vm '{vm.name(machine)}' stopped by the operator")
    vm.stopped(machine)
    return Status.OK


def reboot(machine: Vm) -> Status:
    """Start a VM again from its kernel, whatever it does now; of its own reboots it loses none. BAD_ARGUMENT: it has ended."""
    if not is_alive(machine):
        return Status.BAD_ARGUMENT
    guest_console.finish_line(machine)
    machine.state = VmState.REBOOTING
    log.info(f"vm '{vm.name(machine)}' rebooted by the operator")
    events.happened(machine, EventKind.REBOOTING, machine.reboots, "the operator")
    vm.stopped(machine)
    return Status.OK


def destroy(machine: Vm) -> None:
    """End a VM if it has not ended, and free its place in the table once what it holds has been given back."""
    machine.destroy = True
    if is_alive(machine):
        stop(machine)
    elif machine.state == VmState.REBOOTING:
        machine.state = VmState.ENDED  # it is being emptied: let that go on to the end
        guest_console.finish(machine)
    elif machine.nested_root == 0:
        vm.destroy(machine)


def is_alive(machine: Vm) -> bool:
    """Whether it can be stopped or rebooted: it runs or is paused."""
    return machine.state in (VmState.RUNNING, VmState.PAUSED)
