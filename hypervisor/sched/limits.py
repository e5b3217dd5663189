"""Caps, reservations and sets of CPUs of VMs, pins of vCPUs: what is refused, and how one is changed while guests run.

A reservation is admitted only if it can be kept whatever the others do: with all others' in the same CPUs it leaves a tenth of
them to those that have none, and the VM has the vCPUs for it. Sets of CPUs are equal, apart, or one within another: so what is due
to everyone can be said (water.py) and kept. A vCPU is pinned to one CPU of its VM's, which is within or apart from any set. Its VM has no
reservation then, for how much of it that CPU would have to keep would depend on which vCPUs the guest lets run.
"""
from typing import Annotated, Final

from hypervisor.abi_trace import TraceKind
from hypervisor.lang import u8, u32, u64
from hypervisor.model import MAX_CPUS, MAX_VCPUS_PER_VM, MAX_VMS, Vcpu, Vm, VmState
from hypervisor.sched import cap, cpus, policy
from hypervisor.sched.cpus import host
from hypervisor.sched.trace import meet, note, trace

PERCENT: Final = 100
RESERVABLE: Final = 90  # percent of each CPU
PERIOD_LEAST_MS: Final = 10
PERIOD_MOST_MS: Final = 1000
PERIOD_MS: Final = 100  # unless one is given


def problem(vms: Annotated[list[Vm | None], MAX_VMS], vm: Vm, percent: u32, reserved: u32, set_: u32) -> str:
    """Why a VM cannot have this cap (0: none), this reservation, both in percent of a CPU, and this set of CPUs (0: all); empty: it can."""
    if set_ & ~cpus.present() != 0:
        return "there is no such CPU"
    mine: u32 = set_ if set_ != 0 else cpus.present()
    if percent > PERCENT * host.count:
        return "that is more than all CPUs"
    if percent != 0 and reserved > percent:
        return "its reservation would be above its cap"
    if reserved > PERCENT * min(vm.vcpu_count, cpus.number_of(mine)):
        return "it has not the vCPUs or CPUs for that reservation"
    if not _nested(vms, vm, mine):
        return "its CPUs overlap another VM's: sets are equal, apart, or one within the other"
    if reserved != 0 and has_pins(vm):
        return "a VM that has pinned vCPUs has no reservation"
    if reserved != 0 and not _can_keep(vms, vm, reserved, mine):
        return "the CPUs cannot keep that reservation: nine tenths may be promised"
    return ""


def set_cap(vm: Vm, percent: u32, period_ticks: u64, now: u64) -> None:
    """Change the cap of a VM; `problem` has none."""
    policy.told(TraceKind.CAP, vm, now, period_ticks, percent)
    policy.leave_all(vm)
    cap.set_cap(vm, percent, period_ticks, now)
    policy.rejoin(now)


def set_reservation(vm: Vm, percent: u32, now: u64) -> None:
    """Change the reservation of a VM; `problem` has none."""
    policy.told(TraceKind.RESERVE, vm, now, percent, 0)
    policy.leave_all(vm)
    vm.reserved = percent
    policy.rejoin(now)


def set_cpus(vms: Annotated[list[Vm | None], MAX_VMS], vm: Vm, set_: u32, now: u64) -> None:
    """Bind a VM to CPUs, 0: to none; `problem` has none. No vCPU of it is pinned then. Whoever runs elsewhere leaves when its CPU picks next."""
    policy.told(TraceKind.CPUS, vm, now, set_, 0)
    policy.everyone_leaves()
    vm.cpus = 0 if set_ == cpus.present() else set_
    for index in range(MAX_VCPUS_PER_VM):
        vm.pins[index] = 0
        member = vm.vcpus[index]
        if member is not None:
            member.cpus = 0
    host.pinned = vm.cpus != 0
    for other in vms:
        if other is not None and _counts(other) and (other.cpus != 0 or has_pins(other)):
            host.pinned = True
    policy.rejoin(now)


def pin_problem(vm: Vm, index: u64, set_: u32) -> str:
    """Why its vCPU of this number cannot be pinned to this set of CPUs; empty: it can."""
    if index >= vm.vcpu_count:
        return "it has no such vCPU"
    if cpus.number_of(set_) != 1 or set_ & ~cpus.allowed(vm) != 0:
        return "a vCPU is pinned to one CPU, of those of its VM"
    if vm.reserved != 0:
        return "a VM that has a reservation has no pinned vCPUs"
    return ""


def pin(vcpu: Vcpu, set_: u32, now: u64) -> None:
    """Pin a vCPU to this one CPU; `pin_problem` has none. If it runs elsewhere it leaves when its CPU picks next."""
    vm = vcpu.vm
    assert vm is not None
    if trace.on:
        meet(vcpu, now)
        note(TraceKind.PIN, vcpu, 0, now, set_, 0)
    policy.everyone_leaves()
    for cpu in range(MAX_CPUS):
        if set_ == cpus.bit(u32(cpu)):
            vm.pins[vcpu.index] = u8(cpu + 1)
    vcpu.cpus = set_
    host.pinned = True
    policy.rejoin(now)


def bind_new(now: u64) -> None:
    """A VM that is bound to CPUs is being made: who waits is put in order by CPU, if that was not so before."""
    if not host.pinned:
        if trace.on:
            note(TraceKind.CPUS, None, 0, now, 0, 0)
        policy.everyone_leaves()
        host.pinned = True
        policy.rejoin(now)


def _counts(vm: Vm) -> bool:
    return vm.state in (VmState.RUNNING, VmState.PAUSED, VmState.REBOOTING)


def has_pins(vm: Vm) -> bool:
    """Is any vCPU of it pinned, or will be when it is made?"""
    for pinned in vm.pins:
        if pinned != 0:
            return True
    return False


def _nested(vms: Annotated[list[Vm | None], MAX_VMS], vm: Vm, mine: u32) -> bool:
    for other in vms:
        if other is not None and other != vm and _counts(other):
            theirs = cpus.allowed(other)
            if mine & theirs != 0 and mine & ~theirs != 0 and theirs & ~mine != 0:
                return False
    return True


def _can_keep(vms: Annotated[list[Vm | None], MAX_VMS], vm: Vm, reserved: u32, mine: u32) -> bool:
    """Is nine tenths of each set that holds `mine` enough for what is promised inside it?"""
    if not _fits(vms, vm, reserved, mine, cpus.present()) or not _fits(vms, vm, reserved, mine, mine):
        return False
    for other in vms:
        if other is not None and other.cpus != 0 and _counts(other):
            theirs = cpus.allowed(other)
            if mine & ~theirs == 0 and theirs != mine and not _fits(vms, vm, reserved, mine, theirs):
                return False
    return True


def _fits(vms: Annotated[list[Vm | None], MAX_VMS], vm: Vm, reserved: u32, mine: u32, inside: u32) -> bool:
    promised: u64 = reserved if mine & ~inside == 0 else 0
    for other in vms:
        if other is not None and other != vm and _counts(other) and cpus.allowed(other) & ~inside == 0:
            promised += other.reserved
    return promised <= RESERVABLE * cpus.number_of(inside)
