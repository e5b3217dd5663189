"""The `krait` command. Each subcommand is a thin shell around the library; output for people goes to standard error."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console as Terminal
from rich.table import Table

from krait import bench as benchmarks
from krait import bench_disk, bench_isolation, bench_linux, bench_paths, cli_guests, cli_trace
from krait import doctor as environment
from krait import images, linux_image, paths, relay, running, sched_bench
from krait.config import ConsoleKind, Protocol
from krait.machine import AccelName, EmulatorName, Machine
from krait.outcome import ExitCode, KraitError

app = typer.Typer(
    name="krait",
    help="Build and boot Krait, a Type-1 micro-hypervisor written in typed Python.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

EmulatorOption = Annotated[EmulatorName, typer.Option("--emulator", help="qemu: AMD SVM; bochs: VT-x.")]
ReleaseOption = Annotated[bool, typer.Option("--release/--debug", help="Image without or with self-checks.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

BATCH_SECONDS = 900.0
"""How long a run without a terminal may take unless --timeout says otherwise."""

STATE_STYLE = {"ok": "green", "MISSING": "bold red", "optional": "yellow"}


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Look whether everything needed is here; exit code 3 when something is missing."""
    findings = environment.examine()
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _show_findings(findings)
    raise typer.Exit(ExitCode.OK if environment.healthy(findings) else ExitCode.MISSING)


def _show_findings(findings: list[environment.Finding]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        detail = f"{finding.detail}; mend it with: {finding.mend}" if finding.mend else finding.detail
        table.add_row(f"[{STATE_STYLE[finding.state]}]{finding.state}", finding.name, detail)
    Terminal(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


@app.command()
def build(
    release: Annotated[bool | None, typer.Option("--release/--debug", help="One image only; both otherwise.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Build the hypervisor's image, the PV guest kernel, and the Linux guest's kernel and file system."""
    made: dict[str, str] = {}
    for kind in (False, True) if release is None else (release,):
        name = paths.image_dir(kind).name
        made[f"{name} image"] = str(images.hypervisor(kind))
        made[f"{name} PV guest"] = str(images.pv_guest(kind))
    made["Linux kernel"] = str(linux_image.kernel())
    made["Linux file system"] = str(linux_image.initramfs())
    if as_json:
        print(json.dumps(made, indent=2))
    else:
        for name, path in made.items():
            print(f"{name:<18} {paths.shown(Path(path))}")


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Argument(help="VM configuration (TOML); docs/running.md tells what is in it. The demonstration otherwise.")
    ] = None,
    linux: Annotated[bool, typer.Option("--linux", help="Boot one Linux guest to a root shell, without a configuration.")] = False,
    kernel: Annotated[Path | None, typer.Option("--kernel", help="--linux: another kernel than Debian's.")] = None,
    initrd: Annotated[Path | None, typer.Option("--initrd", help="--linux: another initial file system than ours.")] = None,
    boot: Annotated[Protocol, typer.Option("--boot", help="--linux: how the kernel is entered.")] = "linux64",
    console: Annotated[ConsoleKind, typer.Option("--console", help="--linux: what the guest's console is.")] = "uart",
    append: Annotated[str, typer.Option("--append", help="--linux: words behind the kernel's usual command line.")] = "",
    memory: Annotated[str, typer.Option("--memory", help="--linux: the guest's memory.")] = running.LINUX_MEMORY,
    vcpus: Annotated[int, typer.Option("--vcpus", help="--linux: the guest's CPUs.")] = 1,
    emulator: EmulatorOption = "qemu",
    accel: Annotated[AccelName, typer.Option("--accel", help="kvm needs nested virtualization.")] = "tcg",
    release: ReleaseOption = False,
    iso: Annotated[bool, typer.Option("--iso", help="Boot from a GRUB ISO (Bochs always does).")] = False,
    cpus: Annotated[int | None, typer.Option("--cpus", help="CPUs of the machine; else as the file says, or 1.", min=1)] = None,
    icount: Annotated[bool, typer.Option("--icount", help="Count instructions: every run is the same.")] = False,
    gdb: Annotated[bool, typer.Option("--gdb", help="Wait for gdb before the first instruction.")] = False,
    prompt: Annotated[
        bool | None, typer.Option("--prompt/--no-prompt", help="Stay at the operator's prompt; so on a terminal.")
    ] = None,
    image: Annotated[Path | None, typer.Option("--image", help="Boot this krait.elf instead of building one.")] = None,
    timeout: Annotated[float | None, typer.Option(help=f"Seconds; {BATCH_SECONDS:g} without a prompt.", min=1)] = None,
    consoles: Annotated[Path | None, typer.Option("--consoles", help="Folder for a Unix socket for each guest's console.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the emulator's command line, do nothing.")] = False,
) -> None:
    """Boot a configuration and show its guests; without a terminal the exit code is the result."""
    stay = relay.terminal_keys() is not None if prompt is None else prompt
    # Under --icount every run is the same: what comes from outside at any moment would end that.
    machine = Machine(emulator, accel, icount=icount, iso=iso, gdb=gdb, channel=not icount)
    files = {"kernel": kernel, "initrd": initrd}
    named = {name: str(path) for name, path in files.items() if path is not None}
    if linux:
        if config is not None or image is not None:
            raise KraitError("--linux boots one guest of its own: without FILE and --image", ExitCode.USAGE)
        plan = running.plan_linux({"memory": memory, "vcpus": vcpus, "boot": boot, "console": console, **named}, append, machine, release, stay, cpus)
    elif named or append or (boot, console) != ("linux64", "uart") or memory != running.LINUX_MEMORY or vcpus != 1:
        raise KraitError("--kernel, --boot, --console, --initrd, --append, --memory and --vcpus describe the guest of --linux", ExitCode.USAGE)
    else:
        plan = running.plan(config or running.DEMO, machine, release, stay, image, cpus)
    if dry_run:
        print(running.dry_run(plan))
        return
    if timeout is None and not stay and not gdb:
        timeout = BATCH_SECONDS
    raise typer.Exit(running.run(replace(plan, consoles=consoles), timeout))


app.command("list")(cli_guests.list_)
app.command("top")(cli_guests.top_)
app.command()(cli_guests.console)
app.command()(cli_guests.command)
app.add_typer(cli_trace.app, name="trace")


@app.command()
def attach(
    name: Annotated[str | None, typer.Argument(help="A guest: its lines only. The operator's console otherwise.")] = None,
    process: Annotated[int | None, typer.Option("--pid", help="Which `krait run`; the latest otherwise.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the process ids of what is running.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Join a running `krait run` from another terminal."""
    if listing:
        found = running.running()
        print(json.dumps(found) if as_json else "\n".join(map(str, found)) or "nothing is running")
        return
    raise typer.Exit(running.attach(name, process))


@app.command()
def bench(
    what: Annotated[
        Literal["disk", "exits", "isolation", "linux", "paths", "sched"],
        typer.Argument(help="disk: instructions and exits for a read of 4 KiB; exits: instructions per operation of a guest; "
                       "isolation: what neighbours lose to a guest that does its worst; linux: those of a boot, and its exits; "
                       "paths: the longest between two returns to the run loop; sched: all scheduling policies on the same workloads."),
    ],
    emulator: EmulatorOption = "qemu",
    victims: Annotated[list[str] | None, typer.Option("--victim", help="isolation: pv, linux; both otherwise.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet/--loud", help="linux: whether the kernel prints its messages.")] = True,
    console: Annotated[ConsoleKind, typer.Option("--console", help="linux: what the kernel's console is.")] = "uart",
    as_json: JsonOption = False,
) -> None:
    """Measure the release image; or the scheduling policies, in the simulator."""
    if what == "sched":
        compared = sched_bench.run()
        if as_json:
            print(json.dumps(asdict(compared)))
        else:
            _show_policies(compared)
        return
    if what == "linux":
        if emulator != "qemu":
            raise KraitError("bench linux counts instructions: it needs --emulator qemu", ExitCode.USAGE)
        _show_linux(bench_linux.measure(quiet, console), as_json)
        return
    if what == "isolation":
        chosen = tuple(victims or bench_isolation.VICTIMS)
        if not set(chosen) <= set(bench_isolation.VICTIMS):
            raise KraitError(f"--victim: {' or '.join(bench_isolation.VICTIMS)}", ExitCode.USAGE)
        _show_isolation(bench_isolation.measure(victims=chosen), as_json)
        return
    if what == "disk":
        _show_disk(bench_disk.measure(), as_json)
        return
    if what == "paths":
        _show_paths(bench_paths.measure(), as_json)
        return
    report = benchmarks.exits(emulator)
    if as_json:
        print(json.dumps(asdict(report)))
        return
    print(f"{what} on {report.emulator} ({report.vendor}), instructions per operation")
    for operation, count in report.instructions.items():
        bound = benchmarks.PROMISED[report.emulator].get(operation)
        print(f"  {operation:<14}{count:>8}" + (f"   promised: at most {bound}" if bound is not None else ""))


def _show_policies(report: sched_bench.Report) -> None:
    print(f"{report.seconds} simulated seconds; {sched_bench.UNITS}")
    order = list(dict.fromkeys(row.workload for row in report.rows))
    print(sched_bench.table(sorted(report.rows, key=lambda row: order.index(row.workload))))
    for title, table in (("pick", report.instructions_per_pick), ("switch (charge, requeue, pick, slice)", report.instructions_per_switch)):
        print(f"\ninstructions of a {title}")
        print(f"  {'policy':<15}" + "".join(f"{f'{size} vCPUs':>11}" for size in next(iter(table.values()))))
        for name, counts in table.items():
            print(f"  {name:<15}" + "".join(f"{count:>11}" for count in counts.values()))
    print(f"  {'eevdf, traced':<15}" + "".join(f"{count:>11}" for count in report.instructions_per_traced_switch.values()))
    print(f"\npicture: {paths.shown(Path(report.picture))}")


def _show_linux(report: bench_linux.Report, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(report)))
        return
    print("Debian's cloud kernel from its first instruction to /init, in instructions")
    print(f"  bare machine  {report.direct:>14,}\n  Krait's guest {report.guest:>14,}   ratio {report.ratio:.4f}")
    print(f"  exits         {report.exits_total:>14,}")
    for cause, count in report.exits.items():
        print(f"    {cause:<18}{count:>8,}")


def _show_disk(rows: list[bench_disk.Row], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print("reads of 4 KiB past the page cache by Linux, each: instructions from io_submit to io_getevents, and exits")
    print(f"  {'in flight':<11}{'bare machine':>13}{'guest':>9}{'ratio':>8}{'exits':>9}")
    for row in rows:
        print(f"  {row.depth:<11}{row.direct:>13,}{row.guest:>9,}{row.ratio:>8.2f}{row.exits:>9.3f}")
    for row in rows:
        print(f"  exits with {row.depth} in flight: " + ", ".join(f"{cause} {count:.3f}" for cause, count in row.exits_by_cause.items()))


def _show_isolation(losses: list[bench_isolation.Loss], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(loss) for loss in losses]))
        return
    victims = list(dict.fromkeys(loss.victim for loss in losses))
    print(f"instructions that a fixed job takes beyond its fair share, beside a stressor; promised: at most {bench_isolation.PROMISED_PERCENT:g} %")
    print(f"  {'stressor':<17}" + "".join(f"{victim:>10}" for victim in victims))
    for stressor in dict.fromkeys(loss.stressor for loss in losses):
        found = {loss.victim: loss.loss_percent for loss in losses if loss.stressor == stressor}
        print(f"  {stressor:<17}" + "".join(f"{found[victim]:>+8.2f} %" for victim in victims))


def _show_paths(found: list[bench_paths.Path], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(path) for path in found]))
        return
    print(f"longest path between two returns to the run loop, in instructions; promised: at most {bench_paths.PROMISED:,}")
    for path in found:
        print(f"  {path.kind:<24}{path.longest:>9,} of {path.count:>9,}")


def main() -> None:
    """Entry point of the command: exceptions that a user can act on become one message and an exit code."""
    try:
        app()
    except KraitError as error:
        print(f"krait: {error}", file=sys.stderr)
        sys.exit(error.code)
    except OSError as error:
        print(f"krait: {error}", file=sys.stderr)
        sys.exit(ExitCode.FAILED)
    except KeyboardInterrupt:
        print("krait: interrupted", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)
