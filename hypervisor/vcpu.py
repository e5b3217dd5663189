"""Virtual CPUs: made and unmade. Who runs is the policies' business (sched/), what runs them the run loop's."""
from typing import Final

from hypervisor import mtrr, timers
from hypervisor.abi import VM_KIND_PV
from hypervisor.addresses import PAGE_SIZE, Hva, hpa_of, hva_of
from hypervisor.arch_x86 import backend, extended_state
from hypervisor.arch_x86.defs.cr import RFLAGS_RESERVED_ONE
from hypervisor.arch_x86.vm_exit import EXIT_CAUSES
from hypervisor.channel import consoles
from hypervisor.cpu import this_cpu
from hypervisor.devices import lapic
from hypervisor.lang import address, at, sizeof, struct, u32
from hypervisor.memory import frames
from hypervisor.memory.ledger import Use
from hypervisor.model import MAX_VCPUS_PER_VM, TimerKind, Vcpu, VcpuState, Vm
from hypervisor.paging import pressure
from hypervisor.sched import cpus, run_queue
from hypervisor.sched.wake import sleep
from hypervisor.status import Status


@struct
class Population:
    """vCPUs of all VMs."""

    count: u32


population: Final = Population()


def create(vm: Vm, index: u32) -> Status:
    """Make vCPU `index` of a VM whose nested tables exist; it is BLOCKED until vm.start, or PARKED until a start-up IPI. NO_MEMORY; QUOTA: too many."""
    assert sizeof(Vcpu) <= PAGE_SIZE
    if population.count >= run_queue.CAPACITY or index >= MAX_VCPUS_PER_VM:
        return Status.QUOTA
    page = frames.alloc_for(vm.id, Use.OTHER)
    if page == 0:
        return Status.NO_MEMORY
    frames.zero(page)
    vm.overhead_frames += 1
    population.count += 1
    vcpu = at(Vcpu, hva_of(page))
    vm.vcpus[index] = vcpu
    vcpu.vm = vm
    vcpu.index = index
    vcpu.state = VcpuState.BLOCKED
    vcpu.weight = vm.weight
    if vm.pins[index] != 0:
        vcpu.cpus = cpus.bit(u32(vm.pins[index] - 1))
    vcpu.regs.rflags = RFLAGS_RESERVED_ONE
    vcpu.timer.vcpu = vcpu
    vcpu.timer.kind = TimerKind.GUEST
    vcpu.apic_timer.vcpu = vcpu
    vcpu.apic_timer.kind = TimerKind.APIC
    lapic.reset(vcpu.lapic, index, index == 0)
    if vm.kind == VM_KIND_PV:
        vcpu.lapic.waits_for_startup = False  # it waits for WAKE
    elif vcpu.lapic.waits_for_startup:
        vcpu.state = VcpuState.PARKED
    area = frames.alloc_for(vm.id, Use.OTHER)
    if area == 0:
        return Status.NO_MEMORY
    frames.zero(area)
    vm.overhead_frames += 1
    extended_state.start(vcpu, hva_of(area))
    mtrr.start(vcpu)
    return backend.create_vcpu(vm, vcpu)


def stop(vcpu: Vcpu) -> None:
    """It never runs again; its timers are taken away."""
    stop_waiting(vcpu)
    sleep(vcpu, VcpuState.STOPPED)


def stop_waiting(vcpu: Vcpu) -> None:
    """For frames, for room on its console, and for time."""
    pressure.stop_waiting(vcpu)
    consoles.stop_waiting(vcpu)
    timers.cancel(vcpu.timer)
    timers.cancel(vcpu.apic_timer)


def destroy(vm: Vm, index: u32) -> None:
    """Give back all that a stopped vCPU holds; also one whose creation failed half way."""
    vcpu = vm.vcpus[index]
    if vcpu is None:
        return
    assert not vcpu.on_cpu
    stop_waiting(vcpu)  # an exit that was under way on another CPU when the VM was stopped may have armed one again
    backend.destroy_vcpu(vm, vcpu)
    if vcpu.fpu_hva != 0:
        frames.free(hpa_of(vcpu.fpu_hva))
        vm.overhead_frames -= 1
    keep_account(vm, vcpu)
    vm.vcpus[index] = None
    population.count -= 1
    frames.free(hpa_of(Hva(address(vcpu))))
    vm.overhead_frames -= 1


def keep_account(vm: Vm, vcpu: Vcpu) -> None:
    """What a vCPU that goes has used stays in its VM's account."""
    vm.past_cpu_time += vcpu.cpu_time
    vm.past_timer_interrupts += vcpu.lapic.timer_interrupts
    vm.past_bus_interrupts += vcpu.lapic.bus_interrupts
    for cause in range(EXIT_CAUSES):
        vm.past_exits[cause] += vcpu.exits[cause]
