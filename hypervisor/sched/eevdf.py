"""Earliest eligible virtual deadline first (Stoica and Abdel-Wahab, 1995), over two levels: VMs, then the vCPUs of a VM.

Each competitor asks for one quantum of service at a time. Its virtual time v is the service it has had over its weight; the
level's virtual time V is the average of v by weight, so lag = weight * (V - v) is what it is owed, and all lags add up to 0.
Eligible is who has lag >= 0, and among them runs the one whose request has the least virtual deadline, v + quantum / weight
when the request began. Picking takes O(log n) at each level: fair_tree.py tells why.

Lag on one CPU. While nobody joins or leaves a level, |lag| <= 1 quantum (the paper's theorem 1, all requests being one
quantum). A vCPU's lag against the fluid share over both levels is that within its VM plus its part of the VM's: <= 2 quanta.

Leaving and joining. V never goes back while anyone competes. Who leaves takes its virtual time along. What it is owed (lag l > 0) it
forgoes: V jumps by l / W, W the weight of the others, so it is theirs by weight. For what it owes (l < 0) V stands still until the
others have had that service. Who joins starts at max(v, V), at most a quantum / weight ahead, and its being ahead is taken off those
debts, or else V jumps: sleeping earns no claim on the past, nor does it cancel a debt. So the lags of those that compete add up to the
debts D that stand; somebody is always eligible.

The bound, in quanta. Ahead: who is picked has lag >= 0, is served one quantum at most, and V does not go back: lag >= -1. Behind: let V
come to or past the deadline d of k's request at t, with r of it not served, and let t0 be the last time before at which one with a later
deadline was picked. That one ran for a quantum at most; since then only requests with deadlines <= d were served. Those are of
competitors that had lag < 0 at t0, or joined later. One that is still there had at most w (V(t) - V(t0)) - w (V(t) - d); one that left
with lag l had w times V's way while it was there, less l. Over all, w times V's way adds up to t - t0, and what was forgone, less the
debts paid; V moves only when no debt is left. Hence W (V(t) - d) + r <= 1 + E - D(t0), where E sums up the lags, at t0, of those
that were eligible with later deadlines then and have left since. Each such lag is < 1, and their sum less D(t0) is no more than what the
others are ahead, <= 1 each: E - D(t0) <= n / 2, with n competitors. So lag = w (V(t) - d) + r <= 1 + n w / (2 W): whatever joins and leaves.

That is against V. Against the fluid share of those that compete, since it joined, a competitor is moreover behind by what it owed then (<= 1)
and by w / W for each that left owing, and once more for what stood when it joined (D <= 1: who leaves by itself owes no more than it ran
since it was picked); and ahead by w / W for each that joined owing, and for each that left by w / W of that one's lag. Over both levels: let
M bound the VM's distance, and p be the vCPU's part of its VM. Then the vCPU's own distance within the VM grows by M (p at first + p now + the
sum of p's changes). krait/sched_bounds.py counts all this, tests/sched/test_simulated.py holds it.

Several CPUs share the one queue: whoever is due first among all runs where a CPU is free. Queues of one CPU each would have to
be balanced by weight, and bound a lag by how often that is done; here it is bounded by the order itself, and one lock is held
anyway. A weight that asks for more than a CPU for each vCPU, or than limits allow, is replaced by one in proportion to the rate
that the CPUs can serve (water.py), lags kept, at each join and leave: _readjust, O(VMs) where such a weight is possible, else
O(1). Where nobody waits everyone has what it can use, and lags are forgotten. vCPUs of one VM have the same weight there.

Lag on m CPUs. Rates u <= 1 sum up to m at most, so this is global EDF, not preemptive for a quantum, of requests of a quantum
each. Devi and Anderson (2005) bound how late one is fulfilled: (m - 1) / (m - U) + 1 quanta, U the m - 1 greatest rates
together, so m quanta at most; until then it falls behind by (1 - u) + u * m quanta at most: behind by m quanta. Ahead: whoever
is picked with lag < 0 is so because all with lag > 0 run already, m - 1 at most; lags add up to 0, so it is ahead by
(m - 1) * m quanta, and a quantum when it has run. Measured over random machines up to 8 CPUs: 2 quanta, and 3 over two levels
(tests/sched/test_cpus.py), since one level's lag is shared by m siblings that may run at once.
"""
from typing import Annotated, Final

from hypervisor.lang import struct, u32, u64, wrap_u64
from hypervisor.model import FairTree, Share, Vcpu, Vm
from hypervisor.sched import cpus, fair_tree, water
from hypervisor.sched.cpus import host
from hypervisor.sched.quantum import quantum
from hypervisor.sched.water import CPU, PERCENT, VMS_MOST, Water

UNIT_SHIFT: Final = 22  # virtual time runs at 2^22 / Share.weight a tick
WEIGHT_SHIFT: Final = 10  # Share.weight of a VM at no limit is its weight << 10
MOST_CHARGED: Final = 1 << 40  # ticks at a time; with the shift well below 2^63
MOST_OWED: Final[u64] = 1 << 60  # a lag, shifted: what is more is forgotten when weights change
REST_SHIFT: Final = 5  # a request with less than 1/32 quantum left is taken for fulfilled


@struct
class Eevdf:
    """The upper level, and all VMs that compete in no order."""

    vms: FairTree
    vcpus: u32  # that compete, waiting or running
    total: u64  # weights of the VMs
    limited: u32  # VMs that have a reservation, a cap or a set of CPUs
    adjusted: bool  # some VM's Share.weight is not its weight
    count: u32
    competitors: Annotated[list[Vm | None], VMS_MOST]
    heaviest: u64  # no VM of the list weighs more
    water: Water


state: Final = Eevdf()


def woken(vcpu: Vcpu) -> None:
    """It begins to compete."""
    vm = _vm(vcpu)
    if host.count > 1:
        _forget_lags()
    if vm.competitors == 0:
        _vm_joins(vm)
    vm.competitors += 1
    state.vcpus += 1
    vcpu.share.vcpu = vcpu
    vcpu.share.cpus = cpus.ALL
    _join(vm.members, vcpu.share, u64(vcpu.weight) << WEIGHT_SHIFT)
    preempted(vcpu)
    _readjust()


def preempted(vcpu: Vcpu) -> None:
    """It ran, and waits again."""
    vm = _vm(vcpu)
    fair_tree.insert(vm.members, vcpu.share)
    if not vm.share.queued:
        fair_tree.insert(state.vms, vm.share)


def left(vcpu: Vcpu) -> None:
    """It waits or runs, and does not compete any more."""
    vm = _vm(vcpu)
    if vcpu.share.queued:
        fair_tree.remove(vm.members, vcpu.share)
        if vm.members.root is None and vm.share.queued:
            fair_tree.remove(state.vms, vm.share)
    elif vm.members.root is not None and not vm.share.queued:
        fair_tree.insert(state.vms, vm.share)
    _leave(vm.members, vcpu.share)
    vm.competitors -= 1
    state.vcpus -= 1
    if vm.competitors == 0:
        _vm_leaves(vm)
    _readjust()


def choose(cpu: u32) -> Vcpu | None:
    """Who waits and is to run on this CPU: of the VM that is due first, the vCPU that is."""
    of_vm = fair_tree.pick(state.vms, cpu)
    if of_vm is None:
        return None
    of_vcpu = fair_tree.pick(_vm_of(of_vm).members, 0)
    assert of_vcpu is not None
    return of_vcpu.vcpu


def take(vcpu: Vcpu) -> None:
    """It runs from now on. With one CPU its VM does not wait until it is put back: nobody else can be picked meanwhile."""
    vm = _vm(vcpu)
    fair_tree.remove(vm.members, vcpu.share)
    if vm.share.queued and (vm.members.root is None or host.count == 1):
        fair_tree.remove(state.vms, vm.share)


def charge(vcpu: Vcpu, ticks: u64, now: u64) -> None:
    """It has run for `ticks`, or a timer of it has been served for so long while it waits."""
    vm = _vm(vcpu)
    _charge_share(vm.members, vcpu.share, ticks)
    _charge_share(state.vms, vm.share, ticks)


def yielded(vcpu: Vcpu) -> None:
    """It gives up the rest of its request, in favour of its siblings."""
    _serve(_vm(vcpu).members, vcpu.share, _request_left(vcpu.share))


def slice_of(vcpu: Vcpu, now: u64) -> u64:
    """What is left of its request or of its VM's, whichever ends first."""
    return min(_request_left(vcpu.share), _request_left(_vm(vcpu).share))


def _vm(vcpu: Vcpu) -> Vm:
    vm = vcpu.vm
    assert vm is not None
    return vm


def _vm_of(share: Share) -> Vm:
    vm = share.vm
    assert vm is not None
    return vm


def _vm_joins(vm: Vm) -> None:
    vm.share.vm = vm
    vm.share.cpus = cpus.allowed(vm) if host.pinned else cpus.ALL
    state.vms.bound = host.pinned
    _join(state.vms, vm.share, u64(vm.weight) << WEIGHT_SHIFT)
    vm.competitor_index = state.count
    state.competitors[state.count] = vm
    state.count += 1
    state.total += vm.weight
    state.heaviest = max(state.heaviest, vm.weight)
    state.limited += _limits(vm)


def _vm_leaves(vm: Vm) -> None:
    _leave(state.vms, vm.share)
    state.count -= 1
    last = state.competitors[state.count]
    assert last is not None
    state.competitors[vm.competitor_index] = last
    last.competitor_index = vm.competitor_index
    state.competitors[state.count] = None
    state.total -= vm.weight
    state.limited -= _limits(vm)


def _limits(vm: Vm) -> u32:
    """1 if it has any; they change only while it does not compete."""
    return 1 if vm.cap.percent != 0 or vm.reserved != 0 or vm.cpus != 0 else 0


def _request_left(share: Share) -> u64:
    return (wrap_u64(share.deadline - share.virtual_time) * share.weight + (1 << UNIT_SHIFT) - 1) >> UNIT_SHIFT


def _virtual(ticks: u64, weight: u64) -> u64:
    return (ticks << UNIT_SHIFT) // weight


def _serve(tree: FairTree, share: Share, ticks: u64) -> None:
    """Service makes its virtual time go on, and the average by its part."""
    gone = _virtual(min(ticks, MOST_CHARGED), share.weight)
    share.virtual_time = wrap_u64(share.virtual_time + gone)
    _advance(tree, gone * share.weight)
    rest = _virtual(quantum.ticks >> REST_SHIFT, share.weight)
    if not fair_tree.before(wrap_u64(share.virtual_time + rest), share.deadline):
        share.deadline = wrap_u64(share.virtual_time + _virtual(quantum.ticks, share.weight))


def _charge_share(tree: FairTree, share: Share, ticks: u64) -> None:
    """One that waits has another place in the tree afterwards."""
    queued = share.queued
    if queued:
        fair_tree.remove(tree, share)
    _serve(tree, share, ticks)
    if queued:
        fair_tree.insert(tree, share)


def _join(tree: FairTree, share: Share, weight: u64) -> None:
    share.weight = weight
    request = _virtual(quantum.ticks, weight)
    ahead: u64 = 0
    if fair_tree.before(tree.average, share.virtual_time):
        ahead = min(wrap_u64(share.virtual_time - tree.average), request)
    share.virtual_time = wrap_u64(tree.average + ahead)
    share.deadline = wrap_u64(share.virtual_time + request)
    tree.weight += weight
    _advance(tree, ahead * weight)


def _leave(tree: FairTree, share: Share) -> None:
    tree.weight -= share.weight
    if tree.weight == 0:
        tree.average = share.virtual_time
        tree.rest = 0
        tree.debt = 0
    elif fair_tree.before(tree.average, share.virtual_time):
        tree.debt += wrap_u64(share.virtual_time - tree.average) * share.weight
        _advance(tree, 0)
    else:
        _advance(tree, wrap_u64(tree.average - share.virtual_time) * share.weight)


def _advance(tree: FairTree, amount: u64) -> None:
    """The average goes on by amount / weight, less what pays the debts of those that left."""
    tree.rest += amount
    paid = min(tree.rest, tree.debt)
    tree.debt -= paid
    tree.rest -= paid
    tree.average = wrap_u64(tree.average + tree.rest // tree.weight)
    tree.rest = tree.rest % tree.weight


def _forget_lags() -> None:
    """If nobody waits, everyone has all that it can use: nobody owes, nobody is owed."""
    running: u32 = 0
    for cpu in range(host.count):
        vcpu = host.running[cpu]
        if vcpu is not None and vcpu.competing:
            running += 1
    if running != state.vcpus:
        return
    for cpu in range(host.count):
        vcpu = host.running[cpu]
        if vcpu is not None and vcpu.competing:
            vm = _vm(vcpu)
            _even(vm.members, vcpu.share)
            _even(state.vms, vm.share)


def _even(tree: FairTree, share: Share) -> None:
    """One of them all: they are made even one after the other."""
    tree.rest = 0
    tree.debt = 0
    share.virtual_time = tree.average
    share.deadline = wrap_u64(share.virtual_time + _virtual(quantum.ticks, share.weight))


def _readjust() -> None:
    """Make the weights that count such that the CPUs can serve them: after each join and leave."""
    if _feasible():
        if not state.adjusted:
            return
        state.adjusted = False
    else:
        _note_demands()
        water.fill(state.water, cpus.present())
        state.adjusted = True
    for i in range(state.count):
        _reweigh(state.vms, _competitor(u32(i)).share, _weight_now(u32(i)))


def _competitor(index: u32) -> Vm:
    vm = state.competitors[index]
    assert vm is not None
    return vm


def _feasible() -> bool:
    """Can everyone have its weight's part of all CPUs?"""
    if state.limited != 0:
        return False
    if state.heaviest * host.count <= state.total or host.count == 1:
        return True
    state.heaviest = 0
    feasible = True
    for i in range(state.count):
        vm = _competitor(u32(i))
        state.heaviest = max(state.heaviest, vm.weight)
        if u64(vm.weight) * host.count > state.total * vm.competitors:
            feasible = False
    return feasible


def _note_demands() -> None:
    state.water.count = state.count
    for i in range(state.count):
        vm = _competitor(u32(i))
        demand = state.water.demands[i]
        demand.weight = vm.weight
        demand.cpus = cpus.allowed(vm)
        demand.ceiling = min(vm.competitors, cpus.number_of(demand.cpus)) * CPU
        if vm.cap.percent != 0:
            demand.ceiling = min(demand.ceiling, vm.cap.percent * CPU // PERCENT)
        demand.floor = min(demand.ceiling, vm.reserved * CPU // PERCENT)


def _weight_now(index: u32) -> u64:
    """By its weight, or in proportion to its rate if that is another than its weight would give it."""
    weight: u64 = _competitor(index).weight
    rate = state.water.demands[index].rate
    free = state.water.free
    if not state.adjusted or (state.water.weight != 0 and rate == free * weight // state.water.weight):
        return weight << WEIGHT_SHIFT
    if state.water.weight == 0:
        return max(rate, 1)
    return max((rate * state.water.weight << WEIGHT_SHIFT) // max(free, 1), 1)


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
    _advance(tree, 0)
    if queued:
        fair_tree.insert(tree, share)
