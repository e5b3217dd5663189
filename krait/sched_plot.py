"""The picture of `krait bench sched`: lag, latency and switches of each policy on each workload, and what a switch costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from krait.outcome import ExitCode, KraitError

if TYPE_CHECKING:
    from krait.sched_bench import Report, Row


def draw(report: Report, to: Path) -> None:
    """Write the picture (PNG). KraitError MISSING without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise KraitError("matplotlib is missing; mend it with: scripts/python-env", ExitCode.MISSING) from error
    policies = list(dict.fromkeys(row.policy for row in report.rows))
    workloads = list(dict.fromkeys(row.workload for row in report.rows))
    figure = Figure(figsize=(14, 9), layout="constrained")
    axes = figure.subplots(2, 2)
    values = {(row.policy, row.workload): row for row in report.rows}
    panels: tuple[tuple[Any, str, Callable[[Row], float]], ...] = (
        (axes[0][0], "greatest lag, in quanta of 1 ms", lambda row: max(row.lag_most, 0.01)),
        (axes[0][1], "latency P99 after a wake-up, in ms", lambda row: max(row.latency_p99 / 1e6, 0.001)),
        (axes[1][0], f"switches in {report.seconds} s", lambda row: max(row.switches, 1)),
    )
    width = 0.8 / len(policies)
    for axis, title, value in panels:
        for number, name in enumerate(policies):
            places = [place + (number - (len(policies) - 1) / 2) * width for place in range(len(workloads))]
            axis.bar(places, [value(values[name, workload]) for workload in workloads], width, label=name)
        axis.set_yscale("log")
        axis.set_title(title)
        axis.set_xticks(range(len(workloads)), [workload.replace(", ", ",\n") for workload in workloads])
        axis.grid(axis="y", alpha=0.3)
    cost = axes[1][1]
    for name, counts in report.instructions_per_switch.items():
        cost.plot(list(counts), list(counts.values()), marker="o", label=name)
    cost.set_xscale("log", base=2)
    cost.set_yscale("log")
    cost.set_xticks(list(next(iter(report.instructions_per_switch.values()))), labels=[
        str(size) for size in next(iter(report.instructions_per_switch.values()))])
    cost.set_title("instructions of a switch, by vCPUs that compete")
    cost.grid(alpha=0.3)
    handles, labels = cost.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(policies))
    figure.savefig(to, dpi=110)
