"""VMs and the machine as records for the host (abi_channel.py)."""
from typing import Final

from hypervisor import clock, log, vm
from hypervisor.abi_channel import HostRecord, VmRecord
from hypervisor.arch_x86 import serial
from hypervisor.arch_x86.vm_exit import EXIT_CAUSES
from hypervisor.channel.events import handle_of
from hypervisor.channel.state import link
from hypervisor.cpu import cpus, online
from hypervisor.lang import clear, i64, sext_i64, u32, u64, wrap_u64
from hypervisor.memory import frames
from hypervisor.model import NAME_BYTES, Vcpu, VcpuState, Vm, VmState
from hypervisor.paging import pressure
from hypervisor.sched import eevdf, policy
from hypervisor.sched.policy import Policy
from hypervisor.sched.quantum import quantum

vm_record: Final = VmRecord()
host_record: Final = HostRecord()


def fill_vm(machine: Vm) -> None:
    """`vm_record` from a VM."""
    r = vm_record
    clear(r)
    r.handle = handle_of(machine)
    r.state = machine.state
    r.kind = machine.kind
    r.weight = machine.weight
    r.vcpu_count = machine.vcpu_count
    r.exit_code = machine.exit_code
    r.reboots = machine.reboots
    for i in range(NAME_BYTES):
        r.name[i] = machine.name[i]
    r.memory_bytes = machine.memory_bytes
    r.private_frames = machine.private_frames
    r.overhead_frames = machine.overhead_frames + machine.nested_frames
    r.pressure_frames = machine.pressure_frames
    if machine.state == VmState.RUNNING:
        r.guest_ns = clock.ns_of(clock.now() - machine.started_at)
    elif machine.paused_at != 0:
        r.guest_ns = clock.ns_of(machine.paused_at - machine.started_at)
    r.console_lost = machine.console.output_lost
    r.lag_ns = lag_ns(machine)
    ticks: u64 = machine.past_cpu_time
    stolen: u64 = 0
    for cause in range(EXIT_CAUSES):
        r.exits[cause] = machine.past_exits[cause]
    for index in range(machine.vcpu_count):
        vcpu = machine.vcpus[index]
        if vcpu is not None:
            ticks += vcpu.cpu_time
            stolen += vcpu.steal_ticks
            add_vcpu(vcpu)
    r.cpu_ns = clock.ns_of(ticks)
    r.steal_ns = clock.ns_of(stolen)


def add_vcpu(vcpu: Vcpu) -> None:
    """What one vCPU adds to its VM's record."""
    if vcpu.state == VcpuState.RUNNABLE:
        vm_record.runnable += 1
    vm_record.wakes += vcpu.wakes
    vm_record.wake_ns += clock.ns_of(vcpu.wake_ticks)
    for cause in range(EXIT_CAUSES):
        vm_record.exits[cause] += vcpu.exits[cause]


def lag_ns(machine: Vm) -> i64:
    """What all of it that competes is owed; 0 for one that does not compete, or under other policies."""
    if policy.current.policy != Policy.EEVDF:
        return 0
    ticks: u64 = 0
    if machine.members.weight != 0:
        ticks = eevdf.lag(machine.share)
    for vcpu in machine.vcpus:
        if vcpu is not None and vcpu.cpus != 0 and vcpu.competing:
            ticks = wrap_u64(ticks + eevdf.lag(vcpu.share))
    owed: i64 = sext_i64(ticks)
    return -i64(clock.ns_of(u64(-owed))) if owed < 0 else i64(clock.ns_of(ticks))


def fill_host() -> None:
    """`host_record`."""
    r = host_record
    clear(r)
    r.us = clock.since_boot_us()
    for index in range(online.count):
        r.idle_ns += clock.ns_of(cpus[index].idle_ticks)
    r.frames = frames.total()
    r.frames_free = frames.free_count()
    r.frames_available = frames.available()
    r.frames_limit = frames.pool.limit
    r.frames_low = pressure.low_watermark()
    r.waiting = pressure.state.waiting
    r.cpus = online.count
    for machine in vm.table.vms:
        if machine is not None:
            r.vms += 1
    r.policy = policy.current.policy
    r.quantum_ns = u32(clock.ns_of(quantum.ticks))
    r.console_dropped = serial.com1.output_dropped
    r.bad_frames = link.parser.bad
    r.skipped_bytes = link.parser.skipped
