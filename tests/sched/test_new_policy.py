"""docs/scheduling.md, "Writing a policy", done in a copy of the tree: a small one is written, named, simulated, and compiled for the bare machine, where it runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from krait import paths

FUNCTIONS = ("woken", "preempted", "left", "choose", "take", "charge", "yielded", "slice_of")


def change(path: Path, *pairs: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in pairs:
        assert len(re.findall(old, text)) == 1, f"{path.name}: {old}"
        text = re.sub(old, new, text)
    path.write_text(text)


def write_policy(tree: Path) -> None:
    """Steps 1 to 3: round robin whose turns are as long as the weight says."""
    sched = tree / "hypervisor" / "sched"
    text = (sched / "round_robin.py").read_text()
    text = text.replace("RoundRobin", "WeightedTurns").replace("quantum.ticks", "(quantum.ticks * vcpu.weight // 100)")
    (sched / "weighted_turns.py").write_text(text)
    change(sched / "policy.py",
           (r"(POLICIES: Final = )(\d+)", r"\g<1>7"), (r"(    CREDIT = 5\n)", r"\1    WEIGHTED_TURNS = 6\n"), (r'"credit"\]', '"credit", "weighted-turns"]'),
           (r"round_robin, stride\n", "round_robin, stride, weighted_turns\n"),
           *((rf"credit\.{name}\)", f"credit.{name}, weighted_turns.{name})") for name in FUNCTIONS))  # fmt: skip
    change(sched / "fresh_start.py", (r"(    clear\(credit\.state\)\n)", r"\1    clear(weighted_turns.state)\n"),
           (r"stride, trace\n", "stride, trace, weighted_turns\n"))  # fmt: skip
    change(tree / "krait" / "sched_worlds.py", (r'("bvt\.state": bvt\.state,)', r'\1 "weighted_turns.state": weighted_turns.state,'),
           (r"stride, trace\n", "stride, trace, weighted_turns\n"))  # fmt: skip


def test_a_new_policy_is_simulated_and_booted(tmp_path: Path) -> None:
    for part in ("hypervisor", "krait", "build"):
        shutil.copytree(paths.ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    paths.CACHE.mkdir(exist_ok=True)
    (tmp_path / ".cache").symlink_to(paths.CACHE)
    write_policy(tmp_path)
    done = subprocess.run([sys.executable, "-m", "krait", "bench", "sched", "--json"], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)}, timeout=900)  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    rows = {(row["policy"], row["workload"]): row for row in report["rows"]}
    mine, equal = (rows[name, "16 spin, 1:2:4:8"] for name in ("weighted-turns", "round-robin"))
    assert round(mine["first_share"] * 60, 1) == 1 and round(equal["first_share"] * 16, 1) == 1, "weights count, as it was written to"
    assert set(report["instructions_per_switch"]["weighted-turns"]) == {"2", "16", "64", "256"}, "it ran on the bare machine"
    assert 0 < report["instructions_per_pick"]["weighted-turns"]["256"] < report["instructions_per_switch"]["weighted-turns"]["256"] < 1500
