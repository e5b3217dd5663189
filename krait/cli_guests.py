"""Subcommands about the guests of a running machine: list, top, console, command."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console as Terminal
from rich.table import Table

from krait import remote, top
from krait.outcome import ExitCode
from krait.records import Record
from krait.top import STATE_STYLE

ProcessOption = Annotated[int | None, typer.Option("--pid", help="Which `krait run`; the latest otherwise.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
            str(record["vcpu_count"]), str(record["weight"]), memory(record["memory_bytes"]),
            f"{record['private_frames'] * 4} KiB", f"{record['cpu_ns'] / 1e9:.2f} s", f"{sum(record['exits'].values()):,}")  # fmt: skip


def memory(size: int) -> str:
    """As the operator's `list` has it."""
    return f"{size >> 10} KiB" if size % (1 << 20) else f"{size >> 20} MiB"


def top_(
    process: ProcessOption = None,
    once: Annotated[bool, typer.Option("--once", help="One table, then end.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2)] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Show live what each guest asks for and gets: CPU, exits, memory. Ctrl-C leaves."""
    if once or as_json:
        top.once(process, interval, as_json)
    else:
        top.live(process, interval)


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
