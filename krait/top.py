"""`krait top`: what each guest of a running machine gets, as a live table. Rates are those between two looks."""

import json
import sys
import time
from dataclasses import asdict, dataclass

from rich.console import Console as Terminal
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from krait.remote import Remote
from krait.records import Record

PAGE_KIB = 4
STATE_STYLE = {"running": "green", "paused": "yellow", "reboots": "yellow", "crashed": "bold red", "ended": "dim"}


@dataclass(frozen=True)
class Row:
    """One guest between two looks. Shares in percent of one CPU; lag in quanta, above 0: it is owed time."""

    name: str
    state: str
    vcpus: int
    weight: int
    asked: float
    received: float
    waited: float
    lag: float
    wake_us: float | None
    exits: float
    main_cause: str
    main_exits: float
    backed_kib: int
    memory_kib: int
    overhead_kib: int
    asked_kib: int


@dataclass(frozen=True)
class View:
    """The machine between two looks."""

    seconds: float
    up: float
    cpus: int
    idle: float
    policy: str
    free_kib: int
    memory_kib: int
    waiting: int
    pressed: bool
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Look:
    """What the machine said at one moment."""

    host: Record
    vms: dict[int, Record]


def look(remote: Remote) -> Look:
    """Ask once."""
    return Look(remote.host(), {vm["handle"]: vm for vm in remote.vms()})


def compare(before: Look, now: Look) -> View:
    """What happened in between; a guest that is new counts from nothing."""
    seconds = max((now.host["us"] - before.host["us"]) / 1e6, 1e-6)
    cpus = max(now.host["cpus"], 1)
    running = [vm for vm in now.vms.values() if vm["state"] == "running"]
    weights = sum(vm["weight"] for vm in running) or 1
    rows = []
    for handle, vm in now.vms.items():
        then: Record = before.vms.get(handle, {"cpu_ns": 0, "steal_ns": 0, "wakes": 0, "wake_ns": 0, "exits": {}})
        asked = 100.0 * cpus * vm["weight"] / weights if vm in running else 0.0
        own = (vm["guest_ns"] - then["guest_ns"]) / 1e9 if "guest_ns" in then else 0.0  # between its own records, as long as it is not paused
        rows.append(_row(vm, then, own if own > 0.0 else seconds, min(asked, 100.0 * vm["vcpu_count"]), now.host["quantum_ns"] or 1))
    host = now.host
    idle = 100.0 * (host["idle_ns"] - before.host["idle_ns"]) / 1e9 / seconds / cpus
    return View(seconds, host["us"] / 1e6, cpus, min(idle, 100.0), host["policy"], host["frames_available"] * PAGE_KIB,
                host["frames_limit"] * PAGE_KIB, host["waiting"], host["frames_available"] <= host["frames_low"], tuple(rows))  # fmt: skip


def _row(vm: Record, then: Record, seconds: float, asked: float, quantum_ns: int) -> Row:
    exits = {cause: (count - then["exits"].get(cause, 0)) / seconds for cause, count in vm["exits"].items()}
    main = max(exits, key=lambda cause: exits[cause], default="")
    wakes = vm["wakes"] - then["wakes"]
    return Row(
        name=vm["name"], state=vm["state"], vcpus=vm["vcpu_count"], weight=vm["weight"], asked=asked,
        received=max(vm["cpu_ns"] - then["cpu_ns"], 0) / 1e7 / seconds, waited=max(vm["steal_ns"] - then["steal_ns"], 0) / 1e7 / seconds,
        lag=vm["lag_ns"] / quantum_ns, wake_us=(vm["wake_ns"] - then["wake_ns"]) / wakes / 1e3 if wakes else None,
        exits=sum(exits.values()), main_cause=main if exits.get(main) else "", main_exits=exits.get(main, 0.0),
        backed_kib=vm["private_frames"] * PAGE_KIB, memory_kib=vm["memory_bytes"] >> 10,
        overhead_kib=vm["overhead_frames"] * PAGE_KIB, asked_kib=vm["pressure_frames"] * PAGE_KIB,
    )  # fmt: skip


def show(view: View) -> RenderableType:
    """The view as a table under two lines about the machine."""
    memory = f"{size(view.memory_kib - view.free_kib)} of {size(view.memory_kib)} used"
    pressure = f", {view.waiting} vCPUs wait for memory" if view.waiting else ", pressure" if view.pressed else ""
    first = Text.assemble(("krait ", "bold"), f"up {view.up:.0f} s   {view.cpus} CPU   ", (f"{100 - view.idle:.0f} % busy", "bold"),
                          f"   policy {view.policy}   memory {memory}", (pressure, "bold red"))  # fmt: skip
    table = Table(box=None, pad_edge=False, header_style="reverse", expand=False)
    table.add_column("VM")
    table.add_column("STATE")
    for heading in ("VCPU", "WEIGHT", "ASKED", "CPU", "WAITS", "LAG", "WAKE", "EXITS/s"):
        table.add_column(heading, justify="right")
    table.add_column("MOSTLY")
    for heading in ("MEMORY", "OF", "OVER", "OWES"):
        table.add_column(heading, justify="right")
    for row in view.rows:
        table.add_row(*_cells(row))
    return Group(first, Text(), table)


def _cells(row: Row) -> tuple[str | Text, ...]:
    live = row.state == "running"
    percent = [f"{value:.1f} %" if live else "" for value in (row.asked, row.received, row.waited)]
    bar = Text(percent[1], style="bold" if row.received >= 0.5 else "")
    return (Text(row.name, style="bold"), Text(row.state, style=STATE_STYLE.get(row.state, "")), str(row.vcpus), str(row.weight),
            percent[0], bar, percent[2], f"{row.lag:+.2f}" if live and abs(row.lag) >= 0.005 else "", _latency(row.wake_us),
            f"{row.exits:,.0f}" if live else "", f"{row.main_cause} {row.main_exits:,.0f}" if live and row.main_cause else "",
            size(row.backed_kib), size(row.memory_kib), size(row.overhead_kib), Text(size(row.asked_kib), style="red") if row.asked_kib else "")  # fmt: skip


def _latency(wake_us: float | None) -> str:
    if wake_us is None:
        return ""
    return f"{wake_us:.0f} us" if wake_us < 10_000 else f"{wake_us / 1000:.0f} ms"


def size(kib: int) -> str:
    """KiB for people."""
    for unit, factor in (("G", 1 << 20), ("M", 1 << 10)):
        if kib >= factor:
            return f"{kib / factor:.1f}{unit}".replace(".0", "")
    return f"{kib}K"


def once(process: int | None, interval: float, as_json: bool) -> None:
    """Two looks, one table."""
    remote = Remote(process)
    view = _between(remote, look(remote), interval)[1]
    if as_json:
        print(json.dumps(asdict(view), indent=2))
    else:
        Terminal(width=None if sys.stdout.isatty() else 160, highlight=False).print(show(view))


def live(process: int | None, interval: float) -> None:
    """Until Ctrl-C, or the machine ends (KraitError)."""
    remote = Remote(process)
    before = look(remote)
    with Live(Text("  looking ..."), screen=True, auto_refresh=False) as screen:
        try:
            while True:
                before, view = _between(remote, before, interval)
                screen.update(show(view), refresh=True)
        except KeyboardInterrupt:
            pass  # the way to leave


def _between(remote: Remote, before: Look, interval: float) -> tuple[Look, View]:
    """The next look, `interval` seconds after the one before."""
    time.sleep(interval)
    now = look(remote)
    return now, compare(before, now)
