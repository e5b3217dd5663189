"""The numbers of docs/numbers.md, measured."""

import pytest

from krait import bench, paths
from krait.machine import Machine


@pytest.mark.parametrize("machine", ["svm", "vtx"], indirect=True)
def test_an_operation_costs_no_more_than_promised(machine: Machine) -> None:
    report = bench.exits(machine.emulator)
    promised = bench.PROMISED[machine.emulator]
    over = {name: (report.instructions[name], most) for name, most in promised.items() if report.instructions[name] > most}
    assert not over, f"operation: (instructions, promised): {over}"


def test_the_documents_promise_the_same() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (paths.ROOT / "docs" / "numbers.md").read_text().splitlines()
        if line.endswith("| `krait bench exits` |")
    ]
    written = {emulator: [row[column] for row in rows] for emulator, column in (("qemu", 1), ("bochs", 2))}
    for emulator, bounds in bench.PROMISED.items():
        assert written[emulator] == [str(bounds.get(name, "–")) for name in bench.OPERATIONS]
