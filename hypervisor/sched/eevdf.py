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
anyway. A weight that asks for more than the CPUs can serve is replaced (feasible.py): where nobody waits all that compete have a
CPU's, and no lag changes. vCPUs of one VM have the same weight there.

A vCPU that is pinned to a CPU competes at the upper level by itself, with its part of its VM's weight, for if it stood for its VM
there a CPU could find the VM due and none of its vCPUs allowed; so its lag is bounded as that of a VM bound to one CPU is.
Where some are bound to CPUs, one that is due a whole CPU would never regain what it waits for another's slice to end after a bound one
has taken its CPU, and fall behind by the root of time. So a switch there is preemptive: each other CPU that runs one whose deadline is
later than that of an eligible one that waits for it picks at once (`_is_overtaken`), and who is displaced moves on. No bound is argued
for that order: a bound vCPU still waits where a free one that is due earlier could have run elsewhere. Measured over random machines up
to 4 CPUs: after 3000 quanta within 30 of the fluid share for each vCPU that is due a whole CPU (tests/sched/test_cpus.py). Whatever joins may cost such a one a quantum.

Lag on m CPUs. Rates u <= 1 sum up to m at most, so this is global EDF, not preemptive for a quantum, of requests of a quantum
each. Devi and Anderson (2005) bound how late one is fulfilled: (m - 1) / (m - U) + 1 quanta, U the m - 1 greatest rates
together, so m quanta at most; until then it falls behind by (1 - u) + u * m quanta at most: behind by m quanta. Ahead: whoever
is picked with lag < 0 is so because all with lag > 0 run already, m - 1 at most; lags add up to 0, so it is ahead by
(m - 1) * m quanta, and a quantum when it has run. Measured over random machines up to 8 CPUs: 2 quanta, and 3 over two levels
(tests/sched/test_cpus.py), since one level's lag is shared by m siblings that may run at once.
"""
from typing import Final

from hypervisor.lang import u32, u64, wrap_u64
from hypervisor.model import Share, Vcpu, Vm
from hypervisor.sched import cpus, fair_tree, feasible, virtual_time
from hypervisor.sched.cpus import host
from hypervisor.sched.feasible import MOST_OWED, WEIGHT_SHIFT, Upper, is_pinned, upper_share, vm_of

state: Final = Upper()


def woken(vcpu: Vcpu) -> None:
    """It begins to compete."""
    vm = _vm(vcpu)
    alone = is_pinned(vcpu)
    first = alone or vm.competitors == vm.lone_competitors
    vm.competitors += 1
    vcpu.share.vcpu = vcpu
    if alone:
        vm.lone_competitors += 1
    if first:
        feasible.join(state, vm, upper_share(vcpu), cpus.of(vcpu))
    if not alone:
        vcpu.share.cpus = cpus.ALL
        virtual_time.join(vm.members, vcpu.share, u64(vcpu.weight) << WEIGHT_SHIFT)
    preempted(vcpu)
    state.stale = True


def preempted(vcpu: Vcpu) -> None:
    """It ran, and waits again."""
    if is_pinned(vcpu):
        fair_tree.insert(state.tree, vcpu.share)
        return
    vm = _vm(vcpu)
    fair_tree.insert(vm.members, vcpu.share)
    if not vm.share.queued:
        fair_tree.insert(state.tree, vm.share)


def left(vcpu: Vcpu) -> None:
    """It waits or runs, and does not compete any more."""
    vm = _vm(vcpu)
    upper = upper_share(vcpu)
    vm.competitors -= 1
    if is_pinned(vcpu):
        vm.lone_competitors -= 1
        if upper.queued:
            fair_tree.remove(state.tree, upper)
        feasible.leave(state, upper)
    else:
        if vcpu.share.queued:
            fair_tree.remove(vm.members, vcpu.share)
            if vm.members.root is None and upper.queued:
                fair_tree.remove(state.tree, upper)
        elif vm.members.root is not None and not upper.queued:
            fair_tree.insert(state.tree, upper)
        virtual_time.leave(vm.members, vcpu.share)
        if vm.competitors == vm.lone_competitors:
            feasible.leave(state, upper)
    state.stale = True


def choose(cpu: u32) -> Vcpu | None:
    """Who waits and is to run on this CPU: of the VM that is due first, the vCPU that is; or a pinned one."""
    if state.stale:
        feasible.readjust(state)
    upper = fair_tree.pick(state.tree, cpu)
    if upper is None or upper.vcpu is not None:
        return None if upper is None else upper.vcpu
    of_vcpu = fair_tree.pick(vm_of(upper).members, 0)
    assert of_vcpu is not None
    return of_vcpu.vcpu


def take(vcpu: Vcpu) -> None:
    """It runs from now on. With one CPU its VM does not wait until it is put back: nobody else can be picked meanwhile."""
    if is_pinned(vcpu):
        fair_tree.remove(state.tree, vcpu.share)
    else:
        vm = _vm(vcpu)
        fair_tree.remove(vm.members, vcpu.share)
        if vm.share.queued and (vm.members.root is None or host.count == 1):
            fair_tree.remove(state.tree, vm.share)
    if host.pinned:
        for cpu in range(host.count):
            if _is_overtaken(u32(cpu)):
                host.overtaken |= cpus.bit(u32(cpu))


def _is_overtaken(cpu: u32) -> bool:
    """Does one wait for this CPU that is due before who runs there?"""
    running = host.running[cpu]
    if running is None or not running.competing:
        return False
    due = fair_tree.pick(state.tree, cpu)
    return due is not None and fair_tree.before(due.deadline, upper_share(running).deadline) and not fair_tree.before(state.tree.average, due.virtual_time)


def charge(vcpu: Vcpu, ticks: u64, now: u64) -> None:
    """It has run for `ticks`, or a timer of it has been served for so long while it waits."""
    if state.stale:
        feasible.readjust(state)
    if is_pinned(vcpu):
        virtual_time.charge(state.tree, vcpu.share, ticks)
        return
    vm = _vm(vcpu)
    virtual_time.charge(vm.members, vcpu.share, ticks)
    virtual_time.charge(state.tree, vm.share, ticks)


def yielded(vcpu: Vcpu) -> None:
    """It gives up the rest of its request, in favour of its siblings; a pinned one, of whoever waits there."""
    if not is_pinned(vcpu):
        virtual_time.serve(_vm(vcpu).members, vcpu.share, virtual_time.request_left(vcpu.share))


def slice_of(vcpu: Vcpu, now: u64) -> u64:
    """What is left of its request or of its VM's, whichever ends first."""
    return min(virtual_time.request_left(vcpu.share), virtual_time.request_left(upper_share(vcpu)))


def _vm(vcpu: Vcpu) -> Vm:
    vm = vcpu.vm
    assert vm is not None
    return vm


def lag(share: Share) -> u64:
    """Ticks of service that one of the upper level is owed, as i64."""
    ahead = fair_tree.before(state.tree.average, share.virtual_time)
    distance: u64 = wrap_u64(share.virtual_time - state.tree.average) if ahead else wrap_u64(state.tree.average - share.virtual_time)
    ticks: u64 = min(distance, MOST_OWED // share.weight) * share.weight >> virtual_time.UNIT_SHIFT
    return wrap_u64(0 - ticks) if ahead else ticks
