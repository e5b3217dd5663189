"""A trace as a workload of the simulator: each vCPU wants the CPU for as long, and sleeps as long in between, as it did on the machine.

What the machine's policy decided is left out, so any policy can be tried on what the guests wanted. Weights, limits and pins are those told
first; a vCPU that wants the CPU when the trace ends goes on wanting it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypervisor.abi_trace import TraceKind
from krait.sched_bench import Row, row_of
from krait.sched_sim import FOREVER, Behaviour, Limits, Machine, Member, Simulation
from krait.sched_worlds import QUANTUM, World, WorldMaker
from krait.trace import Event, Trace


@dataclass
class _Wanted:
    """By one vCPU, in TSC ticks: when it first wanted the CPU, and bursts: how long it ran, and slept then."""

    weight: int
    pinned: int
    begins: int | None = None
    bursts: list[list[int]] = field(default_factory=list)
    since: int | None = None  # when it fell asleep


def machine_of(trace: Trace) -> Machine:
    """The workload, anew for each run, for behaviours have a memory."""
    seen: dict[tuple[int, int], _Wanted] = {}
    weights: dict[int, int] = {}
    limits: dict[int, Limits] = {}
    for event in trace.events:
        match event.kind:
            case TraceKind.VM:
                weights[event.vm] = event.value
                limits[event.vm] = Limits(cpus=event.answer)
            case TraceKind.LIMITS:
                limits[event.vm] = Limits(event.answer & 0xFFFF, _ns(trace, event.value), event.answer >> 16, limits[event.vm].cpus)
            case TraceKind.VCPU if event.who is not None:
                seen[event.who] = _Wanted(event.value, event.answer)
            case _ if event.who in seen:
                _note(seen[event.who], event)
    vms = [(weight, [_member(trace, wanted) for who, wanted in sorted(seen.items(), key=lambda item: item[0]) if who[0] == vm])
           for vm, weight in sorted(weights.items())]  # fmt: skip
    cpus = int(trace.header["cpus"])
    return Machine(vms, cpus, {number: limit for number, limit in enumerate(limits[vm] for vm in sorted(weights)) if limit != Limits()})


def compare(trace: Trace, policies: Sequence[tuple[int, str]], world: WorldMaker) -> list[Row]:
    """Each policy on the workload, for as long as the trace is."""
    until = _ns(trace, trace.events[-1].time - trace.header["began"]) if trace.events else 0
    rows = []
    for number, name in policies:
        machine = machine_of(trace)
        made: World = world(number, machine.shapes, machine.cpus)
        rows.append(row_of(name, "trace", machine, Simulation(made, machine).run(until), until))
    return rows


def _note(wanted: _Wanted, event: Event) -> None:
    match event.kind:
        case TraceKind.ENQUEUE | TraceKind.RUNS:
            if wanted.begins is None:
                wanted.begins = event.time
            elif wanted.since is not None:
                wanted.bursts[-1][1] = event.time - wanted.since
            if wanted.since is not None or not wanted.bursts:
                wanted.bursts.append([0, 0])
            wanted.since = None
        case TraceKind.CHARGE if wanted.bursts and wanted.since is None:
            wanted.bursts[-1][0] += event.value
        case TraceKind.DEQUEUE if wanted.bursts and wanted.since is None:
            wanted.since = event.time


def _member(trace: Trace, wanted: _Wanted) -> Member:
    """Its bursts, one after the other."""
    bursts = [(max(_ns(trace, run), 1), _ns(trace, pause)) for run, pause in wanted.bursts]
    if bursts and wanted.since is None:
        bursts[-1] = (FOREVER, 0)
    begins = FOREVER if wanted.begins is None else _ns(trace, max(wanted.begins - trace.header["began"], 0))
    return Member(_replayed(bursts), wanted.weight, begins, wanted.pinned)


def _replayed(bursts: Sequence[tuple[int, int]]) -> Behaviour:
    left = iter(bursts)
    return lambda now: next(left, (0, FOREVER))


def _ns(trace: Trace, ticks: int) -> int:
    """Of the simulator, whose quantum may be another number of them."""
    return int(ticks) * QUANTUM // int(trace.header["quantum"])
