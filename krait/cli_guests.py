"""Subcommands about the guests of a running machine: list, console, command."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console as Terminal
from rich.table import Table

from krait import remote
from krait.outcome import ExitCode
from krait.switchboard import Record

ProcessOption = Annotated[int | None, typer.Option("--pid", help="Which `krait run`; the latest otherwise.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

STATE_STYLE = {"running": "green", "paused": "yellow", "reboots": "yellow", "crashed": "bold red", "ended": "dim"}


def list_(process: ProcessOption = None, as_json: JsonOption = False) -> None:
    """List the guests of a running machine."""
    records = remote.Remote(process).vms()
    if as_json:
        print(json.dumps(records, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, right in (("NAME", False), ("KIND", False), ("STATE", False), ("VCPUS", True), ("WEIGHT", True), ("MEMORY", True),
                           ("BACKED", True), ("CPU", True), ("EXITS", True)):  # fmt: skip
        table.add_column(heading, justify="right" if right else "left")
    for record in records:
        table.add_row(*_row(record))
    Terminal(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def _row(record: Record) -> tuple[str, ...]:
    state = record["state"]
    return (record["name"], record["kind"], f"[{STATE_STYLE.get(state, '')}]{state}[/]" if state in STATE_STYLE else state,
            str(record["vcpu_count"]), str(record["weight"]), f"{record['memory_bytes'] >> 20} MiB",
            f"{record['private_frames'] * 4} KiB", f"{record['cpu_ns'] / 1e9:.2f} s", f"{sum(record['exits'].values()):,}")  # fmt: skip


def console(name: Annotated[str, typer.Argument(help="The guest.")], process: ProcessOption = None) -> None:
    """Be at a guest's console, beside whoever else is; Ctrl-] Ctrl-C leaves."""
    raise typer.Exit(remote.console(name, process))


def command(
    line: Annotated[list[str], typer.Argument(help="As at the operator's prompt, `help` for a list.")],
    process: ProcessOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run an operator's command in a running machine; exit code 1 when it is refused."""
    text, done = remote.Remote(process).command(" ".join(line))
    if as_json:
        print(json.dumps({"text": text, "done": done}))
    else:
        (sys.stdout if done else sys.stderr).write(text)
    raise typer.Exit(ExitCode.OK if done else ExitCode.FAILED)
