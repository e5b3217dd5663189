"""The numbers of docs/numbers.md, measured."""

from pathlib import Path

import pytest

import make_image
from hypervisor.sched import policy
from krait import bench, bench_disk, bench_linux, bench_paths, images, paths, sched_bench
from krait.machine import Machine


@pytest.mark.parametrize("machine", ["svm", "vtx"], indirect=True)
def test_an_operation_costs_no_more_than_promised(machine: Machine) -> None:
    report = bench.exits(machine.emulator)
    promised = bench.PROMISED[machine.emulator]
    over = {name: (report.instructions[name], most) for name, most in promised.items() if report.instructions[name] > most}
    assert not over, f"operation: (instructions, promised): {over}"


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_no_path_is_longer_than_promised(machine: Machine) -> None:
    found = bench_paths.measure()
    assert {"exit hypercall", "exit nested fault", "work reap", "work disk", "work timers"} <= {path.kind for path in found}
    assert found[0].longest <= bench_paths.PROMISED, found


def test_the_image_is_no_larger_than_promised() -> None:
    assert make_image.loaded_bytes(images.hypervisor(release=True)) < 256 << 10


def test_the_documents_promise_the_same() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (paths.ROOT / "docs" / "numbers.md").read_text().splitlines()
        if line.endswith("| `krait bench exits` |")
    ]
    written = {emulator: [row[column] for row in rows] for emulator, column in (("qemu", 1), ("bochs", 2))}
    for emulator, bounds in bench.PROMISED.items():
        assert written[emulator] == [str(bounds.get(name, "–")) for name in bench.OPERATIONS]


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_all_policies_are_compared(machine: Machine) -> None:
    """The table of `krait bench sched`: what it shows of fairness, of the attack on sampling, and of the cost of a pick."""
    report = sched_bench.run()
    rows = {(row.policy, row.workload): row for row in report.rows}
    workloads = {row.workload for row in report.rows}
    assert set(rows) == {(name, workload) for name in policy.POLICY_NAMES for workload in workloads}
    assert rows["eevdf", "16 spin, 1:2:4:8"].lag_most <= 1 and rows["eevdf", "two levels"].lag_most <= 2
    assert rows["credit", "gamer, spinner"].first_share > 0.95 > 0.51 > rows["eevdf", "gamer, spinner"].first_share
    for name, counts in report.instructions_per_pick.items():
        assert list(counts) == [2, 16, 64, 256] and all(counts.values()), name
    eevdf = report.instructions_per_switch["eevdf"]
    assert rows["eevdf", "16 spin, 2 CPUs"].lag_most <= 1.5 and rows["eevdf", "16 spin, 2 CPUs"].idle == 0
    assert Path(report.picture).read_bytes().startswith(b"\x89PNG")
    assert eevdf[256] - eevdf[16] <= 2 * (eevdf[16] - eevdf[2]) and eevdf[256] <= sched_bench.PROMISED_PICK


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_linux_boots_for_no_more_than_promised(machine: Machine) -> None:
    report = bench_linux.measure(quiet=True)
    assert report.ratio <= bench_linux.PROMISED_RATIO, report
    assert report.exits_total <= bench_linux.PROMISED_EXITS, report


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_a_disk_request_costs_no_more_exits_than_promised(machine: Machine) -> None:
    alone, many = bench_disk.measure()
    assert (alone.depth, many.depth) == bench_disk.DEPTHS
    assert many.exits <= bench_disk.PROMISED_EXITS, many
    assert 1 < many.guest / many.direct < 2, many
