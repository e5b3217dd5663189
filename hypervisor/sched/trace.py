"""Recording what the scheduler does, in one ring for each CPU, switched on and off at run time. Layouts: abi_trace.py.

Off, it costs a test in each call of policy.py and nothing on the path of an exit. On, a record costs some thirty instructions (`krait bench
sched` counts). A trace ends by itself when a CPU's ring is full: one with a gap could not be replayed. Under the hypervisor lock.
"""
from typing import Annotated, Final

from hypervisor.abi_trace import NO_VCPU, TRACE_MAGIC, TRACE_VERSION, TraceHeader, TraceKind, TraceRecord
from hypervisor.lang import apart, at, sizeof, struct, u8, u16, u32, u64
from hypervisor.model import MAX_CPUS, Vcpu
from hypervisor.sched.cpus import host

RING_RECORDS: Final = 32768  # 1 MiB


@struct
class Ring:
    """Of one CPU: records[0 .. written - 1]; those before `sent` have gone to the host."""

    place: u64  # address of RING_RECORDS records; 0: none
    written: u32
    sent: u32


@struct
class Trace:
    """The one that is recorded, or was last."""

    on: bool
    header: TraceHeader
    rings: Annotated[list[Ring], MAX_CPUS]


trace: Final = Trace()


def begin(now: u64, khz: u64, quantum: u64, policy: u32) -> None:
    """Record from now on, into rings that have places. Nobody competes but those that run, who have left the policy."""
    header = trace.header
    header.magic = TRACE_MAGIC
    header.version = TRACE_VERSION
    header.record_bytes = sizeof(TraceRecord)
    header.session += 1
    header.policy = policy
    header.cpus = host.count
    header.records = 0
    header.khz = khz
    header.quantum = quantum
    header.began = now
    header.full = 0
    header.pinned = 1 if host.pinned else 0
    for cpu in range(host.count):
        trace.rings[cpu].written = 0
        trace.rings[cpu].sent = 0
    trace.on = True
    for vcpu in host.running:
        if vcpu is not None:
            meet(vcpu, now)
            note(TraceKind.RUNS, vcpu, vcpu.host_cpu, now, vcpu.picked_at, 0)


@apart
def note(kind: TraceKind, vcpu: Vcpu | None, cpu: u32, now: u64, value: u64, answer: u32) -> None:
    """One record, in the ring of the CPU that it is about. Of a VM: by any of its vCPUs."""
    ring = trace.rings[cpu]
    if ring.written == RING_RECORDS:
        trace.on = False
        trace.header.full = 1
        return
    record = at(TraceRecord, ring.place + ring.written * sizeof(TraceRecord))
    ring.written += 1
    record.time = now
    record.value = value
    record.answer = answer
    record.number = trace.header.records
    trace.header.records += 1
    record.cpu = u8(cpu)
    record.kind = u8(u32(kind))
    record.vcpu = NO_VCPU
    record.vm = 0
    if vcpu is not None:
        vm = vcpu.vm
        assert vm is not None
        record.vcpu = u16(vcpu.index)
        record.vm = vm.generation << 16 | vm.id


@apart
def meet(vcpu: Vcpu, now: u64) -> None:
    """Before anything else is told of a vCPU: it and its VM as they are, if that has not been told in this trace."""
    vm = vcpu.vm
    assert vm is not None
    if vm.traced != trace.header.session:
        vm.traced = trace.header.session
        note(TraceKind.VM, vcpu, 0, now, vm.weight, vm.cpus)
        if vm.cap.percent | vm.reserved != 0:
            note(TraceKind.LIMITS, vcpu, 0, now, vm.cap.period, vm.cap.percent | vm.reserved << 16)
            note(TraceKind.CAP_LEFT, vcpu, 0, now, u64(vm.cap.left), 0)
            note(TraceKind.CAP_END, vcpu, 0, now, vm.cap.refill_at, 0)
    if vcpu.traced != trace.header.session:
        vcpu.traced = trace.header.session
        note(TraceKind.VCPU, vcpu, vcpu.host_cpu, now, vcpu.weight, vcpu.cpus)
