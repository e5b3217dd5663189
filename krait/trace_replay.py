"""Replay of a trace: the recorded calls on the hypervisor's own policies, interpreted, which must answer as they did on the machine."""

from dataclasses import dataclass
from typing import Final

from hypervisor.abi_trace import TraceKind
from hypervisor.lang import sext_i64
from hypervisor.model import MAX_VCPUS_PER_VM, MAX_VMS, Vcpu, Vm
from hypervisor.sched import limits, policy, yielding
from hypervisor.sched.cpus import host
from hypervisor.sched.policy import current
from krait.sched_worlds import Interpreted
from krait.trace import Event, Trace

DECISIONS: Final = (TraceKind.PICK, TraceKind.SLICE, TraceKind.ENQUEUE, TraceKind.STRANDED)


@dataclass(frozen=True)
class Replayed:
    """How it went: calls, decisions among them, and the first that came out otherwise, if any: its number, and both answers."""

    calls: int
    decisions: int
    mismatch: int | None = None
    recorded: str = ""
    simulated: str = ""


class _World:
    """VMs and vCPUs as records tell of them."""

    def __init__(self, trace: Trace, which: int | None) -> None:
        header = trace.header
        self._empty = Interpreted(header["policy"] if which is None else which, [], header["cpus"])  # zeroes what there was
        policy.start(header["quantum"], header["cpus"])
        host.pinned = bool(header["pinned"])
        current.asked, current.unlimited = header["asked"], header["unlimited"]
        self.vms: dict[int, Vm] = {}
        self.vcpus: dict[tuple[int, int], Vcpu] = {}

    def vcpu(self, event: Event) -> Vcpu:
        assert event.who is not None
        return self.vcpus[event.who]

    def table(self) -> list[Vm | None]:
        vms: list[Vm | None] = list(self.vms.values())
        return [*vms, *([None] * (MAX_VMS - len(vms)))]

    def describe(self, event: Event) -> None:
        """A VM, its limits, or a vCPU, as it is now."""
        if event.kind == TraceKind.VCPU:
            vcpu = Vcpu()
            vm = self.vms[event.vm]
            vcpu.vm, vcpu.index, vcpu.weight, vcpu.host_cpu, vcpu.cpus = vm, event.vcpu or 0, event.value, event.cpu, event.answer
            assert vcpu.index < MAX_VCPUS_PER_VM
            vm.vcpus[vcpu.index] = vcpu
            vm.vcpu_count = max(vm.vcpu_count, vcpu.index + 1)
            self.vcpus[event.vm, vcpu.index] = vcpu
            return
        vm = self.vms.setdefault(event.vm, Vm())
        match event.kind:
            case TraceKind.VM:
                vm.id, vm.generation, vm.weight, vm.cpus = event.vm & 0xFFFF, event.vm >> 16, event.value, event.answer
            case TraceKind.LIMITS:
                vm.cap.period, vm.cap.percent, vm.reserved = event.value, event.answer & 0xFFFF, event.answer >> 16
            case TraceKind.CAP_LEFT:
                vm.cap.left = sext_i64(event.value)
            case _:
                vm.cap.refill_at = event.value

    def change(self, event: Event) -> None:
        """Something the operator did."""
        now = event.time
        if event.kind == TraceKind.SELECT:
            policy.select(event.value, now)
        elif event.kind == TraceKind.PIN:
            limits.pin(self.vcpu(event), event.value, now)
        elif event.kind == TraceKind.CPUS and event.who is None:
            limits.bind_new(now)
        else:
            vm = self.vms[event.vm]
            match event.kind:
                case TraceKind.WEIGHT:
                    policy.set_weight(vm, event.value, now)
                case TraceKind.CAP:
                    limits.set_cap(vm, event.answer, event.value, now)
                case TraceKind.RESERVE:
                    limits.set_reservation(vm, event.value, now)
                case _:
                    limits.set_cpus(self.table(), vm, event.value, now)

    def call(self, event: Event) -> str:
        """What the simulated policy answers; empty: nothing."""
        now = event.time
        match event.kind:
            case TraceKind.ENQUEUE:
                return f"asks {policy.enqueue(self.vcpu(event), now):#x}"
            case TraceKind.PICK:
                picked = policy.pick(event.cpu, now)
                return "nobody" if picked is None else self.name(picked)
            case TraceKind.SLICE:
                return f"{policy.slice_of(self.vcpu(event), now)} ticks"
            case TraceKind.STRANDED:
                return f"asks {policy.stranded(now):#x}"
            case TraceKind.REQUEUE:
                policy.requeue(self.vcpu(event), now)
            case TraceKind.DEQUEUE:
                policy.dequeue(self.vcpu(event), now)
            case TraceKind.CHARGE:
                policy.charge(self.vcpu(event), event.value, now)
            case TraceKind.REFILL:
                policy.refill(self.vms[event.vm], now)
            case TraceKind.YIELD:
                yielding.yield_to_others(self.vcpu(event))
            case TraceKind.YIELD_TO:
                yielding.yield_to(self.vcpu(event), self.vcpus[event.vm, event.value])
            case TraceKind.RUNS:
                self.runs(event)
            case TraceKind.VM | TraceKind.LIMITS | TraceKind.CAP_LEFT | TraceKind.CAP_END | TraceKind.VCPU:
                self.describe(event)
            case _:
                self.change(event)
        return ""

    def runs(self, event: Event) -> None:
        """It had the CPU when the trace began."""
        vcpu = self.vcpu(event)
        vcpu.running, vcpu.host_cpu, vcpu.picked_at = True, event.cpu, event.value
        host.running[event.cpu] = vcpu

    def name(self, vcpu: Vcpu) -> str:
        """Handle of the VM, number of the vCPU."""
        vm = vcpu.vm
        assert vm is not None
        return f"{vm.generation << 16 | vm.id}.{vcpu.index}"


def recorded(event: Event) -> str:
    """What the machine's policy answered, as `_World.call` says it."""
    match event.kind:
        case TraceKind.ENQUEUE | TraceKind.STRANDED:
            return f"asks {event.answer:#x}"
        case TraceKind.PICK:
            return "nobody" if event.who is None else f"{event.vm}.{event.vcpu}"
        case TraceKind.SLICE:
            return f"{event.value} ticks"
        case _:
            return ""


def replay(trace: Trace, which: int | None = None) -> Replayed:
    """All calls, in order, up to the first that is answered otherwise; `which`: by another policy than the machine's."""
    world = _World(trace, which)
    decisions = 0
    for number, event in enumerate(trace.events):
        expected = recorded(event)
        got = world.call(event)
        decisions += event.kind in DECISIONS
        if got != expected:
            return Replayed(number + 1, decisions, number, f"{event.kind.name.lower()}: {expected}", got)
    return Replayed(len(trace.events), decisions)
