"""Virtual time of one level (eevdf.py): service over weight of each competitor, and the average by weight, which is the level's.

Times run at 2^UNIT_SHIFT / Share.weight a tick, and wrap. The average is FairTree.average + (rest - debt) / weight.
"""
from typing import Final

from hypervisor.lang import apart, u64, wrap_u64
from hypervisor.model import FairTree, Share
from hypervisor.sched import fair_tree
from hypervisor.sched.quantum import quantum

UNIT_SHIFT: Final = 22
MOST_CHARGED: Final = 1 << 40  # ticks at a time; with the shift well below 2^63
REST_SHIFT: Final = 5  # a request with less than 1/32 quantum left is taken for fulfilled


def virtual(ticks: u64, weight: u64) -> u64:
    """How far one of this weight goes by so much service."""
    return (ticks << UNIT_SHIFT) // weight


def request_left(share: Share) -> u64:
    """Ticks of service until its request is fulfilled."""
    return (wrap_u64(share.deadline - share.virtual_time) * share.weight + (1 << UNIT_SHIFT) - 1) >> UNIT_SHIFT


def serve(tree: FairTree, share: Share, ticks: u64) -> None:
    """Service makes its virtual time go on, and the average by its part. It is not in the tree."""
    gone = virtual(min(ticks, MOST_CHARGED), share.weight)
    share.virtual_time = wrap_u64(share.virtual_time + gone)
    advance(tree, gone * share.weight)
    rest = virtual(quantum.ticks >> REST_SHIFT, share.weight)
    if not fair_tree.before(wrap_u64(share.virtual_time + rest), share.deadline):
        share.deadline = wrap_u64(share.virtual_time + virtual(quantum.ticks, share.weight))


@apart
def charge(tree: FairTree, share: Share, ticks: u64) -> None:
    """Serve one that runs, or waits: then it has another place in the tree afterwards."""
    queued = share.queued
    if queued:
        fair_tree.remove(tree, share)
    serve(tree, share, ticks)
    if queued:
        fair_tree.insert(tree, share)


def join(tree: FairTree, share: Share, weight: u64) -> None:
    """It begins to compete, no earlier than the average and a request after it at most."""
    share.weight = weight
    request = virtual(quantum.ticks, weight)
    ahead: u64 = 0
    if fair_tree.before(tree.average, share.virtual_time):
        ahead = min(wrap_u64(share.virtual_time - tree.average), request)
    share.virtual_time = wrap_u64(tree.average + ahead)
    share.deadline = wrap_u64(share.virtual_time + request)
    tree.weight += weight
    advance(tree, ahead * weight)


def leave(tree: FairTree, share: Share) -> None:
    """It does not compete any more: what it is owed it forgoes, what it owes stands as a debt."""
    tree.weight -= share.weight
    if tree.weight == 0:
        tree.average = share.virtual_time
        tree.rest = 0
        tree.debt = 0
    elif fair_tree.before(tree.average, share.virtual_time):
        tree.debt += wrap_u64(share.virtual_time - tree.average) * share.weight
        advance(tree, 0)
    else:
        advance(tree, wrap_u64(tree.average - share.virtual_time) * share.weight)


def advance(tree: FairTree, amount: u64) -> None:
    """The average goes on by amount / weight, less what pays the debts of those that left."""
    tree.rest += amount
    paid = min(tree.rest, tree.debt)
    tree.debt -= paid
    tree.rest -= paid
    tree.average = wrap_u64(tree.average + tree.rest // tree.weight)
    tree.rest = tree.rest % tree.weight
