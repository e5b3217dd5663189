"""`krait trace`: what the scheduler of a running machine does, recorded; as a timeline; and replayed."""

import json
import re
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hypervisor.sched.policy import POLICY_NAMES
from krait import paths, remote, sched_bench, sched_worlds, trace, trace_replay, trace_workload
from krait.outcome import ExitCode, KraitError

app = typer.Typer(help="Record what the scheduler does, show it as a timeline, replay it.", no_args_is_help=True)
BEGUN = re.compile(r"trace (\d+): on")

FileArgument = Annotated[Path, typer.Argument(help="A trace.")]


@app.command()
def record(
    file: Annotated[Path, typer.Argument(help="Where the trace goes.")],
    seconds: Annotated[float, typer.Option(help="How long; it ends sooner when a CPU's ring is full.", min=0.0)] = 1.0,
    process: Annotated[int | None, typer.Option("--pid", help="Which `krait run`; the latest otherwise.")] = None,
) -> None:
    """Record the scheduling of a running machine."""
    machine = remote.Remote(process)
    said, done = machine.command("trace on")
    begun = BEGUN.search(said)
    if not done or begun is None:
        raise KraitError(said.strip() or "the machine begins no trace", ExitCode.FAILED)
    time.sleep(seconds)
    machine.command("trace off")
    file.write_bytes(machine.trace(int(begun[1])))
    found = trace.read(file)
    typer.echo(f"{len(found.events)} records over {found.us(found.events[-1].time) / 1000 if found.events else 0:.1f} ms"
               f"{', until a ring was full' if found.header['full'] else ''}: {file}", err=True)  # fmt: skip


@app.command()
def timeline(file: FileArgument, to: Annotated[Path, typer.Argument(help="JSON, for https://ui.perfetto.dev or about:tracing.")]) -> None:
    """Turn a trace into a timeline: who ran on which CPU, who waited."""
    trace.write_timeline(trace.read(file), to)


@app.command()
def simulate(
    file: FileArgument,
    policies: Annotated[list[str] | None, typer.Option("--policy", help="Several may be given; all otherwise.")] = None,
    interpreted: Annotated[bool, typer.Option(help="By CPython, for a debugger, in place of a host library built first.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Let policies schedule what the recorded vCPUs wanted: when they woke, how long they ran and slept."""
    chosen = [(POLICY_NAMES.index(_known(name)), name) for name in policies or POLICY_NAMES]
    world: sched_worlds.WorldMaker = sched_worlds.Interpreted
    if not interpreted:
        world = partial(sched_worlds.Compiled, sched_worlds.build(paths.OUT / "sched"))
    rows = trace_workload.compare(trace.read(file), chosen, world)
    print(json.dumps([asdict(row) for row in rows]) if as_json else f"{sched_bench.UNITS}\n{sched_bench.table(rows)}")


def _known(policy: str) -> str:
    if policy not in POLICY_NAMES:
        raise KraitError(f"no such policy: {policy}; there are {', '.join(POLICY_NAMES)}", ExitCode.USAGE)
    return policy


@app.command()
def replay(
    file: FileArgument,
    policy: Annotated[str | None, typer.Option(help="By this policy in place of the one that was recorded.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Do all recorded calls again in the simulator; exit code 1 when a decision comes out otherwise."""
    done = trace_replay.replay(trace.read(file), None if policy is None else POLICY_NAMES.index(_known(policy)))
    if as_json:
        print(json.dumps(asdict(done)))
    elif done.mismatch is None:
        print(f"{done.calls} calls, {done.decisions} decisions: all the same")
    else:
        print(f"record {done.mismatch}: recorded {done.recorded}; simulated {done.simulated}")
    raise typer.Exit(ExitCode.OK if done.mismatch is None else ExitCode.FAILED)
