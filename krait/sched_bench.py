"""`krait bench sched`: every scheduling policy on the same workloads, in the simulator; and what a switch costs. As table and picture.

Workloads are run on the compiled policies in simulated time, so numbers repeat exactly. The instructions of a switch are those of
the bench image (`krait/sched_image/`), which is the same modules built for the bare machine, under QEMU's `-icount shift=0`.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from hypervisor.sched import policy
from krait import paths, progress, sched_plot, sched_sim, sched_worlds, tools
from krait.outcome import ExitCode, KraitError
from krait.sched_sim import Machine, Outcome, Simulation
from krait.sched_worlds import QUANTUM, Compiled

SECONDS = 2
PROMISED_PICK = 1500
"""Upper bound of one switch of EEVDF among 256 vCPUs, in instructions."""

LINE = re.compile(r"^pick ([a-z-]+) (\d+) (\d+) (\d+)$", re.MULTILINE)
TRACED_LINE = re.compile(r"^traced [a-z-]+ (\d+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One policy on one workload. Lag in quanta of 1 ms against the fluid share; times in ns."""

    policy: str
    workload: str
    lag_most: float
    latency_p50: int
    latency_p99: int
    switches: int
    moves: int  # to another CPU
    idle: float  # of the CPUs, while somebody could have run
    first_share: float  # of the CPU, that the first VM's first vCPU had


UNITS = "lag in quanta of 1 ms, latency in us, share of the first vCPU"
"""Of `table`."""


def table(rows: Sequence[Row]) -> str:
    """For people, a line each."""
    lines = [f"  {'workload':<18}{'policy':<15}{'lag max':>8}{'P50':>9}{'P99':>9}{'switches':>10}{'moves':>8}{'idle':>8}{'share':>8}"]
    lines += [f"  {row.workload:<18}{row.policy:<15}{row.lag_most:>8.2f}{row.latency_p50 // 1000:>9}{row.latency_p99 // 1000:>9}"
              f"{row.switches:>10}{row.moves:>8}{row.idle:>8.1%}{row.first_share:>8.3f}" for row in rows]  # fmt: skip
    return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """All rows; by policy and number of vCPUs the instructions of a pick, and of a switch: charge, requeue, pick, slice."""

    seconds: int
    rows: list[Row]
    instructions_per_pick: dict[str, dict[int, int]]
    instructions_per_switch: dict[str, dict[int, int]]
    instructions_per_traced_switch: dict[int, int]
    """Of the default policy, while a trace is recorded."""
    picture: str


def run() -> Report:
    """Build what is needed and measure."""
    out = paths.OUT / "sched"
    with paths.lock("sched"):
        with progress.stage("policies as a host library"):
            library = sched_worlds.build(out)
        rows = []
        for number, name in enumerate(policy.POLICY_NAMES):
            for workload, machine in sched_sim.workloads():
                until = SECONDS * 1000 * QUANTUM
                done = Simulation(Compiled(library, number, machine.shapes, machine.cpus), machine).run(until)
                rows.append(row_of(name, workload, machine, done, until))
        with progress.stage("instructions per switch"):
            picks, switches, traced = _instructions()
        report = Report(SECONDS, rows, picks, switches, traced, str(out / "policies.png"))
        (out / "policies.json").write_text(json.dumps(asdict(report)))
        with progress.stage("picture"):
            sched_plot.draw(report, out / "policies.png")
    return report


def row_of(policy_name: str, workload: str, machine: Machine, done: Outcome, until: int) -> Row:
    """What a run of so many ns showed."""
    late = sorted(done.latencies) or [0]
    return Row(policy_name, workload, round(max(done.lag_most), 2), late[len(late) // 2], late[len(late) * 99 // 100],
               done.switches, done.moves, round(done.idle / (machine.cpus * until), 4), round(done.service[0] / max(sum(done.service), 1), 4))  # fmt: skip


def _instructions() -> tuple[dict[str, dict[int, int]], dict[str, dict[int, int]], dict[int, int]]:
    if str(paths.ROOT / "build") not in sys.path:
        sys.path.insert(0, str(paths.ROOT / "build"))
    import make_image

    image = make_image.Image("krait.sched_image.main", "krait/sched_image", "hypervisor.ld", "sched_bench.elf", {"": 16384})
    elf = make_image.build_image(paths.ROOT, image, paths.OUT / "sched", "image", release=True)
    qemu = tools.BY_NAME["qemu-system-x86_64"].path()
    if qemu is None:
        raise KraitError("qemu-system-x86_64 is missing; mend it with: scripts/setup", ExitCode.MISSING)
    said = subprocess.run([str(qemu), "-m", "64", "-display", "none", "-no-reboot", "-icount", "shift=0", "-debugcon", "stdio",
                           "-serial", "null", "-monitor", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", str(elf)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120).stdout  # fmt: skip
    picks: dict[str, dict[int, int]] = {}
    switches: dict[str, dict[int, int]] = {}
    for name, vcpus, pick, switch in LINE.findall(said):
        picks.setdefault(name, {})[int(vcpus)] = int(pick)
        switches.setdefault(name, {})[int(vcpus)] = int(switch)
    if set(picks) != set(policy.POLICY_NAMES) or not TRACED_LINE.search(said):
        raise KraitError(f"the bench image printed no numbers for all policies:\n{said}")
    return picks, switches, {int(vcpus): int(switch) for vcpus, switch in TRACED_LINE.findall(said)}
