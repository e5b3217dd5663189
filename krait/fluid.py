"""The share that everyone would get if CPUs could be divided at will: what the scheduler's service is measured against.

Rates in CPUs, in floating point and by definition rather than fast: the reference for `hypervisor/sched/water.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Demand:
    """One VM: its weight, the least and the most it may get, in CPUs, and the set of CPUs (bit mask) that it may run on."""

    weight: float
    floor: float
    ceiling: float
    cpus: int


def rates(demands: Sequence[Demand], cpus: int) -> list[float]:
    """The max-min fair rates on `cpus` CPUs: raise everyone's level together; who is in a set that is full stays where it is."""
    everything = (1 << cpus) - 1
    sets = [0] if all(demand.cpus == everything for demand in demands) else range(everything)
    got: list[float | None] = [None] * len(demands)
    while None in got:
        best, tight = _level(demands, got, everything), everything
        for inside in sets:
            level = _level(demands, got, inside)
            if level < best:
                best, tight = level, inside
        for index, demand in enumerate(demands):
            if got[index] is None and (best == float("inf") or demand.cpus & ~tight == 0):
                got[index] = _clamp(demand, best)
    return [rate for rate in got if rate is not None]


def _clamp(demand: Demand, level: float) -> float:
    return max(demand.floor, min(demand.ceiling, level * demand.weight))


def _level(demands: Sequence[Demand], got: Sequence[float | None], inside: int) -> float:
    """The level at which those that may run inside a set only fill it; infinite if they cannot."""
    open_ = [demand for demand, rate in zip(demands, got) if rate is None and demand.cpus & ~inside == 0]
    taken = sum(rate for demand, rate in zip(demands, got) if rate is not None and demand.cpus & ~inside == 0)
    room = inside.bit_count() - taken
    if not open_ or sum(demand.ceiling for demand in open_) <= room + 1e-12:  # nobody is left whom the set holds up, even if floors ask for more than it has
        return float("inf")
    low, points = 0.0, sorted(_points(open_))
    while len(points) > 1:  # the level lies at or above points[0], the sum is linear between two neighbours
        middle = len(points) // 2
        if sum(_clamp(demand, points[middle]) for demand in open_) <= room:
            low, points = points[middle], points[middle:]
        else:
            points = points[:middle]
    free = [demand for demand in open_ if demand.floor / demand.weight <= low < demand.ceiling / demand.weight]
    used = sum(_clamp(demand, low) for demand in open_)
    return low + (room - used) / sum(demand.weight for demand in free) if free else low


def _points(demands: Sequence[Demand]) -> Iterator[float]:
    yield 0.0
    for demand in demands:
        yield demand.floor / demand.weight
        yield demand.ceiling / demand.weight
