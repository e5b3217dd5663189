"""What a PV guest with a fixed job loses to a neighbour that does its worst; `krait bench isolation` has all stressors, and a Linux guest."""

import pytest

from krait import bench_isolation
from krait.bench_isolation import PROMISED_PERCENT
from krait.machine import Machine


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_a_neighbour_loses_no_more_than_its_fair_share(machine: Machine) -> None:
    losses = bench_isolation.measure(["disk", "hypercall flood", "timer flood"], ["pv"])
    assert [(loss.stressor, loss.victim) for loss in losses] == [(name, "pv") for name in ("disk", "hypercall flood", "timer flood")]
    for loss in losses:
        assert -PROMISED_PERCENT <= loss.loss_percent <= PROMISED_PERCENT, loss
