"""Traces: what the policies do is recorded, replayed to the same decisions, and drawn; a trace that was tampered with is found out."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hypervisor.abi_trace import TraceKind, TraceRecord
from hypervisor.lang import address, array, clear, read_memory, sizeof
from hypervisor.model import MAX_VMS
from hypervisor.sched import fresh_start, limits, policy, yielding
from hypervisor.sched.cpus import host
from hypervisor.sched.policy import Policy
from hypervisor.sched.trace import RING_RECORDS, trace
from krait import channel, cli_trace, trace_replay, trace_workload
from krait import trace as traces
from krait.outcome import KraitError
from krait.sched_sim import Limits, Machine, Member, Simulation, gamer, sleeper, spin
from krait.sched_worlds import QUANTUM, Interpreted
from krait.trace import Trace

KHZ = 1_000_000  # of the simulated clock: ns


def machine(cpus: int) -> Machine:
    vms = [(300, [Member(spin()), Member(spin())]), (100, [Member(sleeper(QUANTUM // 2, 7 * QUANTUM, 3), begins=5 * QUANTUM)]),
           (100, [Member(gamer()), Member(spin(), begins=9 * QUANTUM)]), (50, [Member(spin())])]  # fmt: skip
    return Machine(vms, cpus, {2: Limits(cap=40, period=20 * QUANTUM), 3: Limits(reserved=30), 1: Limits(cpus=cpus - 1)})


class Recorder:
    """A simulated machine whose scheduling is recorded from the time `after` on."""

    def __init__(self, which: int, cpus: int, after: int = 0) -> None:
        made = machine(cpus)
        self.world = Interpreted(which, made.shapes, cpus)
        self.rings = [array(TraceRecord, RING_RECORDS) for _ in range(cpus)]
        for number, vm in enumerate(self.world.vms):
            vm.id, vm.generation = number, 5
            for index, vcpu in enumerate(vm.vcpus):
                if vcpu is not None:
                    vcpu.index, vm.vcpu_count = index, index + 1
        self.simulation = Simulation(self.world, made)
        if after:
            self.simulation.run(after)
        for cpu, ring in enumerate(self.rings):
            trace.rings[cpu].place = address(ring)
        self.table = [*self.world.vms, *([None] * (MAX_VMS - len(self.world.vms)))]
        fresh_start.begin(self.table, self.simulation.now, KHZ)

    def end(self) -> Trace:
        """Stop, and all of it as from a file."""
        return traces.decode(self.file())

    def file(self) -> bytes:
        """Stop, and the bytes of a file."""
        trace.on = False
        records = b"".join(read_memory(ring.place, ring.written * sizeof(TraceRecord)).to_bytes(ring.written * sizeof(TraceRecord), "little")
                           for ring in trace.rings if ring.written)  # fmt: skip
        names = {5 << 16 | number: f"vm{number}" for number in range(len(self.world.vms))}
        return traces.file_of(channel.bytes_of(trace.header), names, records)


@pytest.mark.parametrize("which", list(Policy))
@pytest.mark.parametrize("cpus, after", [(1, 0), (3, 0), (1, 50 * QUANTUM), (2, 50 * QUANTUM)])
def test_a_replay_decides_as_the_machine_did(which: Policy, cpus: int, after: int) -> None:
    recorder = Recorder(which, cpus, after)
    recorder.simulation.run(after + 120 * QUANTUM)
    if cpus > 1:  # what the operator and guests do
        now = recorder.simulation.now
        running = host.running[0]
        if running is not None:
            yielding.yield_to_sibling(running)
            yielding.yield_to_others(running)
        policy.set_weight(recorder.world.vms[0], 77, now)
        limits.set_cap(recorder.world.vms[0], 150, 30 * QUANTUM, now)
        limits.set_reservation(recorder.world.vms[0], 20, now)
        limits.set_cpus(recorder.table, recorder.world.vms[1], 0, now)
        pinned = recorder.world.vms[2].vcpus[1]
        assert pinned is not None
        limits.pin(pinned, 0b1, now)
        policy.select((which + 1) % policy.POLICIES, now)
        recorder.simulation.run(after + 160 * QUANTUM)
    found = recorder.end()
    seen = Counter(event.kind for event in found.events)
    assert seen[TraceKind.PICK] > 30 and seen[TraceKind.ENQUEUE] > 5 and seen[TraceKind.RUNS] == (0 if not after else cpus)
    assert seen[TraceKind.SELECT] == seen[TraceKind.PIN] == int(cpus > 1)
    done = trace_replay.replay(found)
    assert done.mismatch is None, done
    assert done.calls == len(found.events) and done.decisions > 60


@pytest.mark.parametrize("cpus", [1, 3])
def test_a_trace_is_a_workload_for_any_policy(cpus: int) -> None:
    """Simulated under the policy that was recorded, everyone gets what it got, within a few quanta; under another, what that gives."""
    recorder = Recorder(Policy.EEVDF, cpus)
    out = recorder.simulation.run(400 * QUANTUM)
    found = recorder.end()
    rows = trace_workload.compare(found, [(Policy.EEVDF, "eevdf"), (Policy.ROUND_ROBIN, "round-robin")], Interpreted)
    assert [row.policy for row in rows] == ["eevdf", "round-robin"] and rows[1].lag_most > rows[0].lag_most
    again = trace_workload.machine_of(found)
    assert [weight for weight, _ in again.vms] == [300, 100, 100, 50] and again.cpus == cpus
    assert again.limits == {number: limit for number, limit in machine(cpus).limits.items() if limit != Limits()}
    redone = Simulation(Interpreted(Policy.EEVDF, again.shapes, cpus), again).run(400 * QUANTUM)
    for got, had in zip(redone.service, out.service):
        assert got == pytest.approx(had, abs=12 * QUANTUM)
    assert len(redone.latencies) == pytest.approx(len(out.latencies), abs=4)


def test_another_policy_decides_otherwise_and_that_is_told() -> None:
    recorder = Recorder(Policy.EEVDF, 1)
    recorder.simulation.run(100 * QUANTUM)
    done = trace_replay.replay(recorder.end(), Policy.ROUND_ROBIN)
    assert done.mismatch is not None and done.recorded != done.simulated


@pytest.mark.parametrize("kind, change", [(TraceKind.PICK, {"vm": 5 << 16}), (TraceKind.SLICE, {"value": 7}), (TraceKind.ENQUEUE, {"answer": 9})])
def test_a_decision_that_was_tampered_with_is_found(kind: TraceKind, change: dict[str, int]) -> None:
    recorder = Recorder(Policy.EEVDF, 1)
    recorder.simulation.run(60 * QUANTUM)
    found = recorder.end()
    number = [place for place, event in enumerate(found.events) if event.kind == kind and event.vm != 5 << 16][-1]
    events = list(found.events)
    events[number] = replace(events[number], vm=change.get("vm", events[number].vm), value=change.get("value", events[number].value),
                             answer=change.get("answer", events[number].answer))  # fmt: skip
    assert trace_replay.replay(replace(found, events=events)).mismatch == number


def test_a_full_ring_ends_the_trace() -> None:
    recorder = Recorder(Policy.EEVDF, 1)
    trace.rings[0].written = RING_RECORDS - 40
    recorder.simulation.run(60 * QUANTUM)
    assert not trace.on and trace.header.full == 1 and trace.rings[0].written == RING_RECORDS
    clear(trace)


def test_a_timeline_shows_what_everyone_had() -> None:
    """Complete events of one track do not overlap, and add up to the service."""
    recorder = Recorder(Policy.EEVDF, 3)
    out = recorder.simulation.run(150 * QUANTUM)
    drawn = traces.timeline(recorder.end())
    events = drawn["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "i"}
    tracks = {(event["pid"], event["tid"]) for event in events if event["ph"] == "M" and event["name"] == "thread_name"}
    for track in tracks:
        spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event["ph"] == "X" and (event["pid"], event["tid"]) == track)
        assert all(end <= begin + 1e-6 for (_, end), (begin, _) in zip(spans, spans[1:]))
    assert all((event["pid"], event["tid"]) in tracks for event in events if event["ph"] == "X")
    had = Counter[str]()
    for event in events:
        if event["ph"] == "X" and event["pid"] == traces.CPUS_PROCESS:
            had[event["name"]] += event["dur"]
    assert had["vm0.1"] == pytest.approx(out.service[1] / 1000, rel=0.02) and had["vm3.0"] == pytest.approx(out.service[5] / 1000, rel=0.02)
    assert {event["args"]["name"] for event in events if event["ph"] == "M"} >= {"host CPUs", "CPU 2", "vm0", "vm3", "vCPU 1"}


def test_what_is_no_trace_is_refused() -> None:
    recorder = Recorder(Policy.EEVDF, 1)
    recorder.simulation.run(20 * QUANTUM)
    found = recorder.end()
    whole = traces.file_of(channel.bytes_of(trace.header), {1: "a"}, b"")
    for data, why in ((whole[:10], "too short"), (b"x" + whole[1:], "no trace of version"), (whole[:-3], "damaged"), (whole, "damaged")):
        with pytest.raises(KraitError, match=why):
            traces.decode(data)
    assert found.events


def test_the_command_draws_and_replays_files(tmp_path: Path) -> None:
    recorder = Recorder(Policy.STRIDE, 1)
    recorder.simulation.run(80 * QUANTUM)
    data = recorder.file()
    file, drawn = tmp_path / "machine.trace", tmp_path / "machine.json"
    file.write_bytes(data)
    run = CliRunner()
    assert run.invoke(cli_trace.app, ["timeline", str(file), str(drawn)]).exit_code == 0
    assert {"traceEvents", "displayTimeUnit"} <= set(json.loads(drawn.read_text()))
    same = run.invoke(cli_trace.app, ["replay", str(file)])
    assert same.exit_code == 0 and "all the same" in same.stdout
    other = run.invoke(cli_trace.app, ["replay", "--json", "--policy", "lottery", str(file)])
    assert other.exit_code == 1 and json.loads(other.stdout)["mismatch"] > 0
    simulated = run.invoke(cli_trace.app, ["simulate", "--json", "--interpreted", "--policy", "stride", "--policy", "credit", str(file)])
    assert simulated.exit_code == 0 and [row["policy"] for row in json.loads(simulated.stdout)] == ["stride", "credit"]
    assert isinstance(run.invoke(cli_trace.app, ["replay", "--policy", "fifo", str(file)]).exception, KraitError)
