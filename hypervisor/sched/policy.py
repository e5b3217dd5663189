"""Who runs next: the one interface to the scheduling policies, one file each, exchangeable while guests run.

A vCPU competes from `enqueue` to `dequeue`, and in between waits or runs (`pick` to `requeue`). A policy is eight functions,
all about vCPUs that compete: `woken` (it begins to, waiting), `preempted` (it ran and waits again), `left` (it waits or runs,
and stops competing), `choose` (who of those that wait and may run on this CPU is next; None: nobody), `take` (it runs from now
on), `charge` (TSC ticks that it ran, or the hypervisor on its behalf, up to `now`), `yielded` (it runs and gives way; whoever
else waits comes first once in any case), `slice_of` (ticks until the policy wants to be asked again, if others wait). A policy
keeps its state in a struct of its own and in the fields of Vcpu and Vm that model.py marks with its name; it may take each
other vCPU for one of its own, and ask for picks on other CPUs (cpus.Cpus.overtaken). docs/scheduling.md tells how to write one.

All host CPUs share one queue: sched/eevdf.py tells why. Caps (cap.py) and sets of CPUs (cpus.py) are kept here, whatever the
policy. Under the hypervisor lock; all running vCPUs have been charged up to `now` when one is enqueued, requeued or picked.
"""
from enum import IntEnum
from typing import Annotated, Final

from hypervisor.abi_trace import TraceKind
from hypervisor.lang import struct, u32, u64
from hypervisor.model import MAX_CPUS, MAX_VCPUS_PER_VM, Vcpu, Vm
from hypervisor.sched import bvt, cap, cpus, credit, eevdf, lottery, round_robin, stride
from hypervisor.sched.cpus import host
from hypervisor.sched.quantum import quantum
from hypervisor.sched.trace import meet, note, trace
from hypervisor.status import Status

WEIGHT_MIN: Final = 1
WEIGHT_MAX: Final = 1 << 20
POLICIES: Final = 6
UNLIMITED: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF  # slice_of: until something happens
REFILLED_AT_ONCE: Final = 8  # vCPUs; each joins for some 500 instructions


class Policy(IntEnum):
    """Index into the tables below."""

    EEVDF = 0
    ROUND_ROBIN = 1
    STRIDE = 2
    LOTTERY = 3
    BVT = 4
    CREDIT = 5


POLICY_NAMES: Final[Annotated[list[str], POLICIES]] = ["eevdf", "round-robin", "stride", "lottery", "bvt", "credit"]
WOKEN: Final = (eevdf.woken, round_robin.woken, stride.woken, lottery.woken, bvt.woken, credit.woken)
PREEMPTED: Final = (eevdf.preempted, round_robin.preempted, stride.preempted, lottery.preempted, bvt.preempted, credit.preempted)
LEFT: Final = (eevdf.left, round_robin.left, stride.left, lottery.left, bvt.left, credit.left)
CHOOSE: Final = (eevdf.choose, round_robin.choose, stride.choose, lottery.choose, bvt.choose, credit.choose)
TAKE: Final = (eevdf.take, round_robin.take, stride.take, lottery.take, bvt.take, credit.take)
CHARGE: Final = (eevdf.charge, round_robin.charge, stride.charge, lottery.charge, bvt.charge, credit.charge)
YIELDED: Final = (eevdf.yielded, round_robin.yielded, stride.yielded, lottery.yielded, bvt.yielded, credit.yielded)
SLICE: Final = (eevdf.slice_of, round_robin.slice_of, stride.slice_of, lottery.slice_of, bvt.slice_of, credit.slice_of)


@struct
class Current:
    """The policy in force."""

    policy: u32
    waiting: u32  # how many vCPUs wait
    asked: u32  # CPUs, one bit each, that have been asked to pick and have not yet
    unlimited: u32  # CPUs whose slice does not end
    yielding: Annotated[list[Vcpu | None], MAX_CPUS]  # by CPU: it runs there, and gives way at its next requeue
    favoured: Annotated[list[Vcpu | None], MAX_CPUS]  # by CPU: it waits, and is to be picked there
    moving: Vcpu | None  # those that leave and join again


current: Final = Current()


def start(quantum_ticks: u64, cpu_count: u32) -> None:
    """Before anything is queued: the length of a quantum in TSC ticks, below 2^24, and the number of host CPUs."""
    assert 0 < quantum_ticks < 1 << 24 and 0 < cpu_count <= MAX_CPUS
    quantum.ticks = quantum_ticks
    host.count = cpu_count


def select(policy: u32, now: u64) -> Status:
    """Change the policy; all join the new one, who runs at its next turn. BAD_ARGUMENT: there is none of this number."""
    if policy >= POLICIES:
        return Status.BAD_ARGUMENT
    everyone_leaves()
    current.policy = policy
    rejoin(now)
    if trace.on:
        note(TraceKind.SELECT, None, 0, now, policy, 0)
    return Status.OK


def set_weight(vm: Vm, weight: u32, now: u64) -> Status:
    """Change the share of a VM; its vCPUs leave and join again, who runs at its next turn. BAD_ARGUMENT: out of range."""
    if weight < WEIGHT_MIN or weight > WEIGHT_MAX:
        return Status.BAD_ARGUMENT
    told(TraceKind.WEIGHT, vm, now, weight, 0)
    leave_all(vm)
    vm.weight = weight
    for member in vm.vcpus:
        if member is not None:
            member.weight = weight
    rejoin(now)
    return Status.OK


def told(kind: TraceKind, vm: Vm, now: u64, value: u64, answer: u32) -> None:
    """Something of a VM is about to be changed, or asked: for the trace, if one is recorded."""
    first = vm.vcpus[0]
    if trace.on and first is not None:
        meet(first, now)
        note(kind, first, 0, now, value, answer)


def everyone_leaves() -> None:
    """All vCPUs leave the policy, to `rejoin` when something has been changed."""
    for running in host.running:
        if running is not None:
            _leave(running)
    for cpu in range(host.count):
        vcpu = CHOOSE[current.policy](u32(cpu))
        while vcpu is not None:
            _move(vcpu)
            vcpu = CHOOSE[current.policy](u32(cpu))


def leave_all(vm: Vm) -> None:
    """A VM's vCPUs leave the policy, to `rejoin` when something of it has been changed."""
    for member in vm.vcpus:
        if member is not None:
            if member.waiting or member.parked:
                _move(member)
            else:
                _leave(member)


def rejoin(now: u64) -> None:
    """Those that have left and do not run."""
    vcpu = current.moving
    while vcpu is not None:
        current.moving = vcpu.moving
        _enqueue(vcpu, now)
        vcpu = current.moving


def enqueue(vcpu: Vcpu, now: u64) -> u32:
    """It has become runnable. Answers the CPUs that are to pick now, one bit each."""
    if trace.on:
        meet(vcpu, now)
    ask = _enqueue(vcpu, now)
    if trace.on:
        note(TraceKind.ENQUEUE, vcpu, vcpu.host_cpu, now, 0, ask)
    return ask


def _enqueue(vcpu: Vcpu, now: u64) -> u32:
    assert not vcpu.competing and not vcpu.parked
    if _park(vcpu, now):
        return 0
    vcpu.competing = True
    _wait(vcpu, now)
    WOKEN[current.policy](vcpu)
    return _place(vcpu)


def requeue(vcpu: Vcpu, now: u64) -> None:
    """It was running and still could; `pick` follows."""
    if trace.on:
        note(TraceKind.REQUEUE, vcpu, vcpu.host_cpu, now, 0, 0)
    cpu = vcpu.host_cpu
    yielding = current.yielding[cpu]
    gives_way = yielding is not None and yielding == vcpu
    if gives_way and vcpu.competing:
        YIELDED[current.policy](vcpu)
    _stops_running(vcpu)
    if _exhausted(vcpu, now):
        _leave(vcpu)
        _park(vcpu, now)
    elif not vcpu.competing:  # something was changed meanwhile; nobody else need be asked, for this CPU picks next
        vcpu.competing = True
        _wait(vcpu, now)
        WOKEN[current.policy](vcpu)
    else:
        _wait(vcpu, now)
        PREEMPTED[current.policy](vcpu)
    current.yielding[cpu] = vcpu if gives_way else None


def dequeue(vcpu: Vcpu, now: u64) -> None:
    """It competes no more, having waited or run; one that does not may be given."""
    if trace.on and (vcpu.competing or vcpu.parked or vcpu.running):
        note(TraceKind.DEQUEUE, vcpu, vcpu.host_cpu, now, 0, 0)
    _leave(vcpu)
    vcpu.parked = False
    vcpu.waiting_since = 0
    if vcpu.running:
        _stops_running(vcpu)


def pick(cpu: u32, now: u64) -> Vcpu | None:
    """Take the next one to run on this CPU out of those that wait."""
    vcpu = _pick(cpu, now)
    if trace.on:
        note(TraceKind.PICK, vcpu, cpu, now, 0, 0)
    return vcpu


def _pick(cpu: u32, now: u64) -> Vcpu | None:
    current.asked = current.asked & ~cpus.bit(cpu)
    vcpu = current.favoured[cpu]
    current.favoured[cpu] = None
    if vcpu is None or not vcpu.waiting or not cpus.may_run_on(vcpu, cpu):
        vcpu = CHOOSE[current.policy](cpu)
    aside = current.yielding[cpu]
    current.yielding[cpu] = None
    if vcpu is not None and aside is not None and vcpu == aside:  # it gives way: to another one, if there is any
        TAKE[current.policy](vcpu)
        other = CHOOSE[current.policy](cpu)
        PREEMPTED[current.policy](vcpu)
        if other is not None:
            vcpu = other
    if vcpu is None:
        return None
    TAKE[current.policy](vcpu)
    vcpu.waiting = False
    current.waiting -= 1
    vcpu.steal_ticks += now - min(vcpu.waiting_since, now)  # another CPU's clock may be a few ticks ahead
    vcpu.waiting_since = 0
    vcpu.running = True
    vcpu.host_cpu = cpu
    vcpu.picked_at = now
    host.running[cpu] = vcpu
    return vcpu


def charge(vcpu: Vcpu, ticks: u64, now: u64) -> None:
    """It has used the CPU, itself or the hypervisor on its behalf, for the `ticks` before `now`."""
    if trace.on:
        meet(vcpu, now)
        note(TraceKind.CHARGE, vcpu, vcpu.host_cpu, now, ticks, 0)
    vcpu.cpu_time += ticks
    vm = vcpu.vm
    assert vm is not None
    cap.charge(vm, ticks, now)
    if vcpu.competing:
        CHARGE[current.policy](vcpu, ticks, now)


def slice_of(vcpu: Vcpu, now: u64) -> u64:
    """TSC ticks that one just picked may run; at least one. UNLIMITED: nobody waits, and it has no cap."""
    vm = vcpu.vm
    assert vm is not None
    ticks: u64 = UNLIMITED
    bit = cpus.bit(vcpu.host_cpu)
    if current.waiting != 0:
        ticks = max(SLICE[current.policy](vcpu, now), 1)
    if vm.cap.percent != 0:
        ticks = min(ticks, max(cap.slice_of(vm, now) // _running_of(vm), 1))
    if ticks == UNLIMITED:
        current.unlimited |= bit
    else:
        current.unlimited = current.unlimited & ~bit
    if trace.on:
        note(TraceKind.SLICE, vcpu, vcpu.host_cpu, now, ticks, 0)
    return ticks


def contended() -> bool:
    """Does anyone wait for a CPU?"""
    return current.waiting != 0


def refill(vm: Vm, now: u64) -> u32:
    """A period of its cap begins: REFILLED_AT_ONCE of those that have been kept out compete again, in each period others first; more by
    another call, if `is_refilling`. Answers the CPUs that are to pick now."""
    ask: u32 = 0
    told(TraceKind.REFILL, vm, now, 0, 0)
    cap.refill(vm, now)
    if not cap.exhausted(vm):
        first: u64 = vm.cap.refill_at // max(vm.cap.period, 1)
        left: u32 = REFILLED_AT_ONCE
        for i in range(MAX_VCPUS_PER_VM):
            member = vm.vcpus[(first + i) % MAX_VCPUS_PER_VM]
            if member is not None and member.parked and left != 0:
                member.parked = False
                ask |= _enqueue(member, now)
                left -= 1
    return ask


def is_refilling(vm: Vm) -> bool:
    """Are some kept out though its cap is not used up?"""
    if cap.exhausted(vm):
        return False
    for member in vm.vcpus:
        if member is not None and member.parked:
            return True
    return False


def stranded(now: u64) -> u32:
    """CPUs that idle or whose slice does not end, and for which somebody waits: they are to pick now. Only where some are bound to CPUs
    can there be any: one that was bound while it ran elsewhere waits for a CPU that has not been asked."""
    ask: u32 = host.overtaken
    host.overtaken = 0
    looked = ask != 0
    if current.waiting != 0:
        for cpu in range(host.count):
            if (host.running[cpu] is None or cpus.has(current.unlimited, u32(cpu))) and not cpus.has(current.asked, u32(cpu)):
                looked = True
                if CHOOSE[current.policy](u32(cpu)) is not None:
                    ask |= cpus.bit(u32(cpu))
        current.asked |= ask
    if trace.on and looked:
        note(TraceKind.STRANDED, None, 0, now, 0, ask)
    return ask


def _place(vcpu: Vcpu) -> u32:
    """The CPUs to ask for one that begins to wait: an idle one, its last if that is; else the one that runs its present vCPU
    longest, and those whose slice does not end."""
    allowed = cpus.of(vcpu)
    idle: u32 = 0
    longest: u32 = 0
    since: u64 = UNLIMITED
    for cpu in range(host.count):
        running = host.running[cpu]
        if cpus.has(allowed & ~current.asked, u32(cpu)):
            if running is None:
                if idle == 0 or cpu == vcpu.host_cpu:
                    idle = cpus.bit(u32(cpu))
            elif running.picked_at < since:
                since = running.picked_at
                longest = cpus.bit(u32(cpu))
    ask: u32 = idle if idle != 0 else longest | (current.unlimited & allowed)
    current.asked |= ask
    return ask


def _running_of(vm: Vm) -> u64:
    count: u64 = 0
    for cpu in range(host.count):
        running = host.running[cpu]
        if running is not None and running.vm == vm:
            count += 1
    return max(count, 1)


def _exhausted(vcpu: Vcpu, now: u64) -> bool:
    vm = vcpu.vm
    assert vm is not None
    if vm.cap.percent == 0:
        return False
    cap.refill(vm, now)
    return cap.exhausted(vm)


def _park(vcpu: Vcpu, now: u64) -> bool:
    """Keep it out until its cap's next period, with all of its VM that wait; False: it need not be."""
    if not _exhausted(vcpu, now):
        return False
    vm = vcpu.vm
    assert vm is not None
    vcpu.parked = True
    if vcpu.waiting_since == 0:
        vcpu.waiting_since = now
    for member in vm.vcpus:
        if member is not None and member.waiting:
            _leave(member)
            member.parked = True
    return True


def _leave(vcpu: Vcpu) -> None:
    """It leaves the policy, wherever it is."""
    if vcpu.competing:
        LEFT[current.policy](vcpu)
        vcpu.competing = False
    if vcpu.waiting:
        vcpu.waiting = False
        current.waiting -= 1


def _move(vcpu: Vcpu) -> None:
    """It leaves the policy, to join again soon."""
    _leave(vcpu)
    vcpu.parked = False
    vcpu.moving = current.moving
    current.moving = vcpu


def _stops_running(vcpu: Vcpu) -> None:
    vcpu.running = False
    host.running[vcpu.host_cpu] = None
    current.unlimited = current.unlimited & ~cpus.bit(vcpu.host_cpu)


def _wait(vcpu: Vcpu, now: u64) -> None:
    vcpu.waiting = True
    current.waiting += 1
    if vcpu.waiting_since == 0:
        vcpu.waiting_since = now
