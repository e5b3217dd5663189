"""The weights that count at EEVDF's upper level (eevdf.py): such that the CPUs can serve them. Looked at after each join and leave.

Who competes there is a VM with those of its vCPUs that are not pinned, or a pinned vCPU by itself; a VM's weight is divided among them by
how many of its vCPUs compete through each. A weight that asks for more than it can be given is replaced by one in proportion to the rate
that the CPUs can serve (water.py), lags kept: O(competitors) where such a weight is possible, else O(1).
"""
from typing import Annotated, Final

from hypervisor.lang import apart, struct, u32, u64, wrap_u64
from hypervisor.model import FairTree, Share, Vcpu, Vm
from hypervisor.sched import cpus, fair_tree, virtual_time, water
from hypervisor.sched.cpus import host
from hypervisor.sched.water import CPU, DEMANDS_MOST, PERCENT, Water

WEIGHT_SHIFT: Final = 10  # Share.weight of a VM at no limit is its weight << 10
MOST_OWED: Final[u64] = 1 << 60  # a lag, shifted: what is more is forgotten when weights change


@struct
class Upper:
    """The upper level, and all that compete there, in no order."""

    tree: FairTree
    vcpus: u32  # that compete, waiting or running, through any of them
    total: u64  # weights of the VMs
    limited: u32  # competitors that have a reservation, a cap or a set of CPUs, or are pinned
    adjusted: bool  # some Share.weight is not its VM's weight
    count: u32
    competitors: Annotated[list[Share | None], DEMANDS_MOST]
    heaviest: u64  # no VM of the list weighs more
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
    """It begins to compete at the upper level, where it may run on these CPUs; `readjust` follows."""
    share.vm = vm
    share.cpus = set_ if host.pinned else cpus.ALL
    upper.tree.bound = host.pinned
    virtual_time.join(upper.tree, share, u64(vm.weight) << WEIGHT_SHIFT)
    share.competitor_index = upper.count
    upper.competitors[upper.count] = share
    upper.count += 1
    weight: u64 = vm_of(share).weight
    upper.total += weight
    upper.heaviest = max(upper.heaviest, weight)
    upper.limited += _limits(share)


@apart
def leave(upper: Upper, share: Share) -> None:
    """It does not compete there any more; `readjust` follows."""
    virtual_time.leave(upper.tree, share)
    upper.count -= 1
    last = _competitor(upper, upper.count)
    upper.competitors[share.competitor_index] = last
    last.competitor_index = share.competitor_index
    upper.competitors[upper.count] = None
    upper.total -= vm_of(share).weight
    upper.limited -= _limits(share)


def readjust(upper: Upper) -> None:
    """Make the weights that count such that the CPUs can serve them."""
    if _feasible(upper):
        if not upper.adjusted:
            return
        upper.adjusted = False
    else:
        _note_demands(upper)
        water.fill(upper.water, cpus.present())
        upper.adjusted = True
    for i in range(upper.count):
        _reweigh(upper.tree, _competitor(upper, u32(i)), _weight_now(upper, u32(i)))


def vm_of(share: Share) -> Vm:
    """Whose it is, at the upper level."""
    vm = share.vm
    assert vm is not None
    return vm


def _limits(share: Share) -> u32:
    """1 if it has any; they change only while it does not compete."""
    vm = vm_of(share)
    return 1 if share.vcpu is not None or vm.cap.percent != 0 or vm.reserved != 0 or vm.cpus != 0 else 0


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
    if upper.heaviest * host.count <= upper.total or host.count == 1:
        return True
    upper.heaviest = 0
    feasible = True
    for i in range(upper.count):
        vm = vm_of(_competitor(upper, u32(i)))
        upper.heaviest = max(upper.heaviest, vm.weight)
        if u64(vm.weight) * host.count > upper.total * vm.competitors:
            feasible = False
    return feasible


def _note_demands(upper: Upper) -> None:
    upper.water.count = upper.count
    for i in range(upper.count):
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


def _weight_now(upper: Upper, index: u32) -> u64:
    """By its weight, or in proportion to its rate if that is another than its weight would give it."""
    if not upper.adjusted:
        return u64(vm_of(_competitor(upper, index)).weight) << WEIGHT_SHIFT
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
