"""Earliest eligible virtual deadline first (Stoica and Abdel-Wahab, 1995), over two levels: VMs, then the vCPUs of a VM.

Each competitor asks for one quantum of service at a time. Its virtual time v is the service it has had over its weight; the
level's virtual time V is the average of v by weight, so lag = weight * (V - v) is what it is owed, and all lags add up to 0.
Eligible is who has lag >= 0, and among them runs the one whose request has the least virtual deadline, v + quantum / weight
when the request began. Picking takes O(log n) at each level: fair_tree.py tells why.

Lag. While nobody joins or leaves a level, |lag| <= 1 quantum (the paper's theorem 1, all requests being one quantum). A
vCPU's lag against the fluid share over both levels is that within its VM plus its part of the VM's: <= 2 quanta.

Leaving and joining. Who leaves takes its virtual time along and V becomes the average of the others. Who joins starts at
max(v, V), but at most a quantum / weight ahead: sleeping earns no claim on the past (lag > 0 is forgotten), nor does it cancel
a debt (lag < 0) before the others have caught up. Each leave or join with lag l moves the others' V by l / W, with W the
weight of those others, and |l| <= 1 quantum. So over an interval in which a vCPU competes it is ahead of its fluid share by
at most 1 + sum(weight / W) quanta, summed over the joins and leaves there: it is only picked with lag >= 0, and then runs for
a quantum at most. It is behind by at most 2 + sum(weight / W) quanta: this is not proven, for V then jumps over deadlines that
the theorem takes as given, but held against random machines (tests/sched/test_simulated.py).
"""
from typing import Final

from hypervisor.lang import struct, u32, u64, wrap_u64
from hypervisor.model import FairTree, Share, Vcpu
from hypervisor.sched import fair_tree
from hypervisor.sched.quantum import quantum

UNIT_SHIFT: Final = 10  # virtual time runs at 1024 / weight a tick
MOST_CHARGED: Final = 1 << 40  # ticks at a time; with the shift well below 2^63
REST_SHIFT: Final = 5  # a request with less than 1/32 quantum left is taken for fulfilled


@struct
class Eevdf:
    """The upper level."""

    vms: FairTree


state: Final = Eevdf()


def woken(vcpu: Vcpu) -> None:
    """It begins to compete."""
    vm = vcpu.vm
    assert vm is not None
    if vm.members.weight == 0:
        vm.share.vm = vm
        _join(state.vms, vm.share, vm.weight)
        fair_tree.insert(state.vms, vm.share)
    vcpu.share.vcpu = vcpu
    _join(vm.members, vcpu.share, vcpu.weight)
    fair_tree.insert(vm.members, vcpu.share)


def preempted(vcpu: Vcpu) -> None:
    """It ran, and waits again."""
    vm = vcpu.vm
    assert vm is not None
    fair_tree.insert(vm.members, vcpu.share)
    fair_tree.insert(state.vms, vm.share)


def left(vcpu: Vcpu) -> None:
    """It waits or runs, and does not compete any more."""
    vm = vcpu.vm
    assert vm is not None
    ran = not vcpu.share.queued
    if not ran:
        fair_tree.remove(vm.members, vcpu.share)
    _leave(vm.members, vcpu.share)
    if vm.members.weight == 0:
        if not ran:
            fair_tree.remove(state.vms, vm.share)
        _leave(state.vms, vm.share)
    elif ran:
        fair_tree.insert(state.vms, vm.share)


def pick() -> Vcpu | None:
    """Take out who runs next: of the VM that is due first, the vCPU that is."""
    of_vm = fair_tree.pick(state.vms)
    if of_vm is None:
        return None
    vm = of_vm.vm
    assert vm is not None
    of_vcpu = fair_tree.pick(vm.members)
    assert of_vcpu is not None
    fair_tree.remove(state.vms, of_vm)
    fair_tree.remove(vm.members, of_vcpu)
    return of_vcpu.vcpu


def charge(vcpu: Vcpu, ticks: u64, now: u64) -> None:
    """It has run for `ticks`."""
    vm = vcpu.vm
    assert vm is not None
    _serve(vm.members, vcpu.share, ticks)
    _serve(state.vms, vm.share, ticks)


def yielded(vcpu: Vcpu) -> None:
    """It gives up the rest of its request, in favour of its siblings."""
    vm = vcpu.vm
    assert vm is not None
    _serve(vm.members, vcpu.share, _request_left(vcpu.share))


def slice_of(vcpu: Vcpu, now: u64) -> u64:
    """What is left of its request or of its VM's, whichever ends first."""
    vm = vcpu.vm
    assert vm is not None
    return min(_request_left(vcpu.share), _request_left(vm.share))


def _request_left(share: Share) -> u64:
    return (wrap_u64(share.deadline - share.virtual_time) * share.weight + (1 << UNIT_SHIFT) - 1) >> UNIT_SHIFT


def _virtual(ticks: u64, weight: u32) -> u64:
    return (ticks << UNIT_SHIFT) // weight


def _serve(tree: FairTree, share: Share, ticks: u64) -> None:
    """Service makes its virtual time go on, and the average by its part."""
    gone = _virtual(min(ticks, MOST_CHARGED), share.weight)
    share.virtual_time = wrap_u64(share.virtual_time + gone)
    tree.rest += gone * share.weight
    _carry(tree)
    rest = _virtual(quantum.ticks >> REST_SHIFT, share.weight)
    if not fair_tree.before(wrap_u64(share.virtual_time + rest), share.deadline):
        share.deadline = wrap_u64(share.virtual_time + _virtual(quantum.ticks, share.weight))


def _join(tree: FairTree, share: Share, weight: u32) -> None:
    share.weight = weight
    request = _virtual(quantum.ticks, weight)
    ahead: u64 = 0
    if fair_tree.before(tree.average, share.virtual_time):
        ahead = min(wrap_u64(share.virtual_time - tree.average), request)
    share.virtual_time = wrap_u64(tree.average + ahead)
    share.deadline = wrap_u64(share.virtual_time + request)
    tree.weight += weight
    tree.rest += ahead * weight
    _carry(tree)


def _leave(tree: FairTree, share: Share) -> None:
    tree.weight -= share.weight
    if tree.weight == 0:
        tree.average = share.virtual_time
        tree.rest = 0
        return
    if fair_tree.before(tree.average, share.virtual_time):
        debt: u64 = wrap_u64(share.virtual_time - tree.average) * share.weight
        back: u64 = 0
        if debt > tree.rest:
            back = (debt - tree.rest + tree.weight - 1) // tree.weight
        tree.average = wrap_u64(tree.average - back)
        tree.rest = tree.rest + back * tree.weight - debt
    else:
        tree.rest += wrap_u64(tree.average - share.virtual_time) * share.weight
    _carry(tree)


def _carry(tree: FairTree) -> None:
    tree.average = wrap_u64(tree.average + tree.rest // tree.weight)
    tree.rest = tree.rest % tree.weight
