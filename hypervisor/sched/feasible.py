"""The weights that count at EEVDF's upper level (eevdf.py): such that the CPUs can serve them. Looked at after joins and leaves.

Who competes there is a VM with those of its vCPUs that are not pinned, or a pinned vCPU by itself; a VM's weight is divided among them by
how many of its vCPUs compete through each. A weight that asks for more than it can be given is replaced by one in proportion to the rate
that the CPUs can serve (water.py), lags kept.

Plain is who has no limit and no pins. While no plain one weighs more than a CPU, all of them keep their weights and count as one demand, so
that a join or leave costs O(limited); O(1) where none is limited. Else, and where weights divide too coarsely, it costs O(competitors).
"""
from typing import Annotated, Final

from hypervisor.lang import apart, struct, u32, u64, wrap_u64
from hypervisor.model import FairTree, Share, Vcpu, Vm
from hypervisor.sched import cpus, fair_tree, virtual_time, water
from hypervisor.sched.cpus import host
from hypervisor.sched.water import CPU, DEMANDS_MOST, PERCENT, Demand, Water

WEIGHT_SHIFT: Final = 10  # Share.weight of a VM at no limit is its weight << 10
MOST_OWED: Final[u64] = 1 << 60  # a lag, shifted: what is more is forgotten when weights change


@struct
class Upper:
    """The upper level, and all that compete there."""

    tree: FairTree
    plain: u64  # weights of the plain ones
    heaviest: u64  # no plain one weighs more
    stale: bool  # somebody has joined or left since weights were looked at
    adjusted: bool  # some plain Share.weight is not its VM's weight
    limited: u32  # how many are not plain
    count: u32
    competitors: Annotated[list[Share | None], DEMANDS_MOST]  # plain ones last
    water: Water


def is_pinned(vcpu: Vcpu) -> bool:
    """Does it compete at the upper level by itself?"""
    return vcpu.cpus != 0


def upper_share(vcpu: Vcpu) -> Share:
    """What competes for it at the upper level."""
    vm = vcpu.vm
    assert vm is not None
    return vcpu.share if is_pinned(vcpu) else vm.share


@apart
def join(upper: Upper, vm: Vm, share: Share, set_: u32) -> None:
    """It begins to compete at the upper level, where it may run on these CPUs; `readjust` is due."""
    share.vm = vm
    share.cpus = set_ if host.pinned else cpus.ALL
    upper.tree.bound = host.pinned
    virtual_time.join(upper.tree, share, u64(vm.weight) << WEIGHT_SHIFT)
    place: u32 = upper.count
    if _is_limited(share):
        place = upper.limited
        upper.limited += 1
        if place != upper.count:
            _put(upper, _competitor(upper, place), upper.count)
    else:
        upper.plain += vm.weight
        upper.heaviest = max(upper.heaviest, vm.weight)
    _put(upper, share, place)
    upper.count += 1


@apart
def leave(upper: Upper, share: Share) -> None:
    """It does not compete there any more; `readjust` is due."""
    virtual_time.leave(upper.tree, share)
    hole = share.competitor_index
    if hole < upper.limited:
        upper.limited -= 1
        _put(upper, _competitor(upper, upper.limited), hole)
        hole = upper.limited
    else:
        upper.plain -= vm_of(share).weight
    upper.count -= 1
    if hole != upper.count:
        _put(upper, _competitor(upper, upper.count), hole)
    upper.competitors[upper.count] = None


def readjust(upper: Upper) -> None:
    """Make the weights that count such that the CPUs can serve them: before anyone is charged or chosen, once for all that joined or left."""
    upper.stale = False
    if not _feasible(upper) and not _limited_suffice(upper):
        _note_demands(upper, upper.count)
        water.fill(upper.water, cpus.present())
        upper.adjusted = True
        upper.heaviest = 0
        for i in range(upper.count):
            share = _competitor(upper, u32(i))
            if u32(i) >= upper.limited:
                upper.heaviest = max(upper.heaviest, vm_of(share).weight)
            _reweigh(upper.tree, share, _weight_of(upper, u32(i)))
        return
    if upper.adjusted:
        upper.adjusted = False
        for i in range(upper.limited, upper.count):
            share = _competitor(upper, u32(i))
            _reweigh(upper.tree, share, u64(vm_of(share).weight) << WEIGHT_SHIFT)
    for i in range(upper.limited):
        _reweigh(upper.tree, _competitor(upper, u32(i)), _weight_beside(upper.water.demands[i], upper.water.demands[upper.limited]))


def vm_of(share: Share) -> Vm:
    """Whose it is, at the upper level."""
    vm = share.vm
    assert vm is not None
    return vm


def _is_limited(share: Share) -> bool:
    """Is it not plain? That changes only while it does not compete."""
    vm = vm_of(share)
    if share.vcpu is not None or vm.cap.percent != 0 or vm.reserved != 0 or vm.cpus != 0:
        return True
    if host.pinned:
        for member in vm.vcpus:
            if member is not None and member.cpus != 0:
                return True
    return False


def _put(upper: Upper, share: Share, place: u32) -> None:
    upper.competitors[place] = share
    share.competitor_index = place


def _competitor(upper: Upper, index: u32) -> Share:
    share = upper.competitors[index]
    assert share is not None
    return share


def _vcpus_of(share: Share) -> u32:
    """How many vCPUs compete through it."""
    vm = vm_of(share)
    return 1 if share.vcpu is not None else vm.competitors - vm.lone_competitors


def _feasible(upper: Upper) -> bool:
    """Can everyone have its weight's part of all CPUs?"""
    if upper.limited != 0:
        return False
    if upper.heaviest * host.count <= upper.plain or host.count == 1:
        return True
    upper.heaviest = 0
    feasible = True
    for i in range(upper.count):
        vm = vm_of(_competitor(upper, u32(i)))
        upper.heaviest = max(upper.heaviest, vm.weight)
        if u64(vm.weight) * host.count > upper.plain * vm.competitors:
            feasible = False
    return feasible


def _limited_suffice(upper: Upper) -> bool:
    """Find the rates with the plain ones as one demand. False: one of these would be due more than a CPU, or theirs divides too coarsely."""
    if upper.limited == 0 or upper.plain == 0:
        return False
    _note_demands(upper, upper.limited)
    rest = upper.water.demands[upper.limited]
    rest.weight = upper.plain << WEIGHT_SHIFT
    rest.cpus = cpus.present()
    rest.floor = 0
    rest.ceiling = host.count * CPU
    upper.water.count = upper.limited + 1
    water.fill(upper.water, rest.cpus)
    return 0 < rest.rate <= rest.weight and (upper.heaviest << WEIGHT_SHIFT) * rest.rate <= rest.weight * CPU


def _note_demands(upper: Upper, count: u32) -> None:
    """Of the first so many."""
    upper.water.count = count
    for i in range(count):
        share = _competitor(upper, u32(i))
        vm = vm_of(share)
        through: u64 = _vcpus_of(share)
        demand = upper.water.demands[i]
        demand.weight = (u64(vm.weight) << WEIGHT_SHIFT) * through // vm.competitors
        demand.cpus = share.cpus & cpus.present()
        demand.ceiling = min(through, cpus.number_of(demand.cpus)) * CPU
        if vm.cap.percent != 0:
            demand.ceiling = min(demand.ceiling, vm.cap.percent * CPU * through // (PERCENT * vm.competitors))
        demand.floor = min(demand.ceiling, vm.reserved * CPU // PERCENT)


def _weight_beside(demand: Demand, rest: Demand) -> u64:
    """Its own beside plain ones, if that gives it its rate; else one in proportion."""
    if demand.rate == rest.rate * demand.weight // rest.weight:
        return demand.weight
    return max(demand.rate * rest.weight // rest.rate, 1)


def _weight_of(upper: Upper, index: u32) -> u64:
    """By its weight, or in proportion to its rate if that is another than its weight would give it."""
    demand = upper.water.demands[index]
    free = upper.water.free
    weight = upper.water.weight
    if weight <= free:  # rates divide finer
        return max(demand.rate, 1)
    if demand.rate == free * demand.weight // weight:
        return demand.weight
    return max(demand.rate * weight // max(free, 1), 1)


def _reweigh(tree: FairTree, share: Share, weight: u64) -> None:
    """Another weight, and the same lag: the average stays where it is."""
    if share.weight == weight:
        return
    queued = share.queued
    if queued:
        fair_tree.remove(tree, share)
    request: u64 = wrap_u64(share.deadline - share.virtual_time) * share.weight // weight
    ahead = fair_tree.before(tree.average, share.virtual_time)
    distance: u64 = wrap_u64(share.virtual_time - tree.average) if ahead else wrap_u64(tree.average - share.virtual_time)
    lag: u64 = min(distance, MOST_OWED // share.weight) * share.weight
    tree.weight = tree.weight - share.weight + weight
    share.weight = weight
    if ahead:
        distance = (lag + weight - 1) // weight
        tree.rest += distance * weight - lag
        share.virtual_time = wrap_u64(tree.average + distance)
    else:
        distance = lag // weight
        tree.rest += lag - distance * weight
        share.virtual_time = wrap_u64(tree.average - distance)
    share.deadline = wrap_u64(share.virtual_time + request)
    virtual_time.advance(tree, 0)
    if queued:
        fair_tree.insert(tree, share)
