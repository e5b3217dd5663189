"""`krait bench sched`: every scheduling policy on the same workloads, in the simulator; and what a switch costs. As table and picture.

Workloads are run on the compiled policies in simulated time, so numbers repeat exactly. The instructions of a switch are those of
the bench image (`krait/sched_image/`), which is the same modules built for the bare machine, under QEMU's `-icount shift=0`.
"""

import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass

from hypervisor.sched import policy
from krait import paths, progress, sched_plot, sched_sim, sched_worlds, tools
from krait.outcome import ExitCode, KraitError
from krait.sched_sim import Simulation
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
                done = Simulation(Compiled(library, number, machine.shapes, machine.cpus), machine).run(SECONDS * 1000 * QUANTUM)
                late = sorted(done.latencies)
                rows.append(Row(name, workload, round(max(done.lag_most), 2), late[len(late) // 2], late[len(late) * 99 // 100],
                                done.switches, done.moves, round(done.idle / (machine.cpus * SECONDS * 1000 * QUANTUM), 4),
                                round(done.service[0] / sum(done.service), 4)))  # fmt: skip
        with progress.stage("instructions per switch"):
            picks, switches, traced = _instructions()
        report = Report(SECONDS, rows, picks, switches, traced, str(out / "policies.png"))
        (out / "policies.json").write_text(json.dumps(asdict(report)))
        with progress.stage("picture"):
            sched_plot.draw(report, out / "policies.png")
    return report


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
