"""The rates that VMs are due on m CPUs: shares by weight, none above what it can use or is allowed, none below its reservation.

Chandra et al. (Surplus Fair Scheduling, 2000) call weights infeasible that promise a thread more than one CPU, and clip them.
Here each VM has a ceiling (one CPU for each vCPU that competes, its CPUs, its cap) and a floor (its reservation, as far as the
ceiling lets it), and gets rate = clamp(level * weight, floor, ceiling) with the level at which the CPUs are full: the
water-filled, max-min fair share.

VMs may be bound to sets of CPUs, vCPUs to one. Any two sets are equal, apart, or one holds the other (limits.py refuses the rest), so rates
can be kept if and only if those of the VMs inside each set sum up to no more than the set has: what a set's own VMs
leave of its CPUs can go to VMs of the sets around it alone. `fill` therefore fills the set of the lowest level first,
fixes its VMs, and goes on with what is left: at most one round for each set.

Within one set a round gives everyone its part of what is left by weight, and then fixes those above their ceilings if these sum
up to more than those below their floors, else the latter: whoever is fixed stays so in the final answer, for every later level is
on the same side. Each round fixes one VM at least; n VMs need O(n) steps a round, and rounds only as many as there are kinds of limits in force.
"""
from typing import Annotated, Final

from hypervisor.lang import struct, u32, u64
from hypervisor.sched.cpus import number_of
from hypervisor.sched.run_queue import CAPACITY

CPU: Final[u64] = 1 << 20  # the rate of a whole CPU
PERCENT: Final = 100
DEMANDS_MOST: Final = CAPACITY  # each has a vCPU that competes


@struct
class Demand:
    """What one VM, or a pinned vCPU of it, asks for, and gets. Rates in 1/CPU of a CPU."""

    weight: u64
    floor: u64  # at most the ceiling
    ceiling: u64
    cpus: u32  # one bit for each CPU it may run on
    fixed: bool  # its rate is final
    settled: bool  # its rate is final if its set is filled now
    rate: u64


@struct
class Water:
    """All of them. The level, free / weight, is that of those which are at neither limit in the set filled last."""

    count: u32
    free: u64
    weight: u64  # 0: everyone is at its ceiling
    demands: Annotated[list[Demand], DEMANDS_MOST]


def fill(water: Water, cpus: u32) -> None:
    """Set all rates. `cpus`: those of the machine, one bit each."""
    left: u32 = water.count
    for i in range(water.count):
        water.demands[i].fixed = False
    while left != 0:
        best: u32 = cpus
        free: u64 = _fill_set(water, cpus)
        weight: u64 = water.weight
        for i in range(water.count):
            demand = water.demands[i]
            if demand.fixed or demand.cpus == best or not _first_of_its_set(water, u32(i)):
                continue
            level = _fill_set(water, demand.cpus)
            if water.weight != 0 and (weight == 0 or level * weight < free * water.weight):
                best = demand.cpus
                free = level
                weight = water.weight
        water.free = _fill_set(water, best)
        for i in range(water.count):
            demand = water.demands[i]
            if not demand.fixed and demand.cpus & ~best == 0:
                demand.fixed = True
                left -= 1


def _first_of_its_set(water: Water, index: u32) -> bool:
    for i in range(index):
        if not water.demands[i].fixed and water.demands[i].cpus == water.demands[index].cpus:
            return False
    return True


def _fill_set(water: Water, cpus: u32) -> u64:
    """Rates of those that may run inside a set only, and are not fixed; answers what those at no limit have, by water.weight."""
    capacity: u64 = number_of(cpus) * CPU
    for i in range(water.count):
        demand = water.demands[i]
        if demand.cpus & ~cpus == 0:
            demand.settled = demand.fixed
            if demand.fixed:
                capacity -= min(demand.rate, capacity)
    changed = True
    free: u64 = 0
    while changed:
        free = capacity
        water.weight = 0
        for i in range(water.count):
            demand = water.demands[i]
            if demand.cpus & ~cpus == 0 and not demand.fixed:
                if demand.settled:
                    free -= min(demand.rate, free)
                else:
                    water.weight += demand.weight
        changed = water.weight != 0 and _settle(water, cpus, free)
    return free if water.weight != 0 else _level_of_floors(water, cpus)


def _level_of_floors(water: Water, cpus: u32) -> u64:
    """Everyone is at a limit: the level is that of the lowest floor. If all are at their ceilings it has no end: weight 0."""
    free: u64 = 0
    for i in range(water.count):
        demand = water.demands[i]
        if demand.cpus & ~cpus == 0 and not demand.fixed and demand.rate < demand.ceiling and (
                water.weight == 0 or demand.rate * water.weight < free * demand.weight):
            free = demand.rate
            water.weight = demand.weight
    return free


def _settle(water: Water, cpus: u32, free: u64) -> bool:
    """One round: divide what is free; settle those beyond the limit that weighs more. False: nobody is beyond any."""
    above: u64 = 0
    below: u64 = 0
    for i in range(water.count):
        demand = water.demands[i]
        if demand.cpus & ~cpus == 0 and not demand.fixed and not demand.settled:
            demand.rate = free * demand.weight // water.weight
            above += demand.rate - min(demand.rate, demand.ceiling)
            below += demand.floor - min(demand.rate, demand.floor)
    if above == 0 and below == 0:
        return False
    for i in range(water.count):
        demand = water.demands[i]
        if demand.cpus & ~cpus == 0 and not demand.fixed and not demand.settled:
            if above >= below and demand.rate > demand.ceiling:
                demand.settled = True
                demand.rate = demand.ceiling
            elif above < below and demand.rate < demand.floor:
                demand.settled = True
                demand.rate = demand.floor
    return True
