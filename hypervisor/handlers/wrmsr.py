"""WRMSR to a register that is not passed through."""
from hypervisor import apic_bus, clock, inject, msrs, pv_eoi, steal_time
from hypervisor.addresses import Gpa, Hva
from hypervisor.arch_x86.defs import msr as defs
from hypervisor.arch_x86.defs.cr import GP
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.devices import kvm_clock, lapic_registers
from hypervisor.devices.kvm_clock import TimeInfo, WallClock
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import address, sizeof, u32, u64
from hypervisor.memory import guest_memory
from hypervisor.model import Vcpu
from hypervisor.status import Status


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Take EDX:EAX, or #GP if the guest has none of this number or the value is not allowed."""
    value: u64 = (vcpu.regs.rdx << 32) | (vcpu.regs.rax & 0xFFFFFFFF)
    msr: u32 = u32(vcpu.regs.rcx)
    status: Status = Status.OK
    if lapic_registers.X2APIC_FIRST <= msr <= lapic_registers.X2APIC_LAST and apic_bus.write_msr(vcpu, msr, value):
        return Outcome.SKIP
    if msr in (defs.KVM_WALL_CLOCK, defs.KVM_WALL_CLOCK_NEW):
        status = write_wall_clock(vcpu, value)
    elif msr in (defs.KVM_SYSTEM_TIME, defs.KVM_SYSTEM_TIME_NEW):
        status = write_system_time(vcpu, value)
    elif msr == defs.KVM_PV_EOI:
        status = pv_eoi.write(vcpu, value) if has_platform(vcpu) else Status.BAD_ARGUMENT
    elif msr == defs.KVM_STEAL_TIME:
        status = steal_time.write(vcpu, value) if has_platform(vcpu) else Status.BAD_ARGUMENT
    elif not msrs.write(vcpu, msr, value):
        status = Status.BAD_ARGUMENT
    if status == Status.OK:
        return Outcome.SKIP
    if status == Status.WAIT:
        return Outcome.WAIT
    msrs.count_refused(vcpu, "WRMSR")
    inject.exception_with_error(vcpu, GP, 0)
    return Outcome.RESUME


def has_platform(vcpu: Vcpu) -> bool:
    """Whether its VM runs a stock system."""
    vm = vcpu.vm
    return vm is not None and vm.platform is not None


def write_wall_clock(vcpu: Vcpu, value: u64) -> Status:
    """The time of day at guest time 0 goes, once, to the address written. WAIT, or an error: #GP."""
    vm = vcpu.vm
    assert vm is not None
    p = vm.platform
    if p is None or value & 3 != 0:
        return Status.BAD_ARGUMENT
    status = guest_memory.pin(vcpu, Gpa(value), sizeof(WallClock), True)
    if status == Status.OK:
        wall = WallClock()
        kvm_clock.fill_wall(wall, p.boot_seconds)
        status = guest_memory.copy_out(vcpu, Gpa(value), Hva(address(wall)), sizeof(WallClock))
        vcpu.kept.misc_msr[msrs.WALL_CLOCK_SLOT] = value
    return status


def write_system_time(vcpu: Vcpu, value: u64) -> Status:
    """Bit 0 set: the structure at the address is filled. Clear: it stays as it is. WAIT, or an error: #GP."""
    gpa = Gpa(value & ~u64(kvm_clock.SYSTEM_TIME_ENABLE))
    if gpa & 3 != 0:
        return Status.BAD_ARGUMENT
    if value & kvm_clock.SYSTEM_TIME_ENABLE != 0:
        status = guest_memory.pin(vcpu, gpa, sizeof(TimeInfo), True)
        if status != Status.OK:
            return status
        info = TimeInfo()
        kvm_clock.fill_time(info, clock.tsc_khz())
        guest_memory.copy_out(vcpu, gpa, Hva(address(info)), sizeof(TimeInfo))
    vcpu.kept.misc_msr[msrs.SYSTEM_TIME_SLOT] = value
    return Status.OK
