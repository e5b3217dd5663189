"""Competitors ordered by virtual time, with the least deadline of each subtree: who is eligible and due first, in O(log n).

A treap: a search tree by virtual time and at once a heap by random priorities, so its shape does not depend on what guests
do, and its expected depth for n nodes is below 2 ln n. `insert`, `remove` and `pick` go up or down once, a bounded number of
steps a level. Virtual times wrap; those of one tree lie within 2^63 of each other.

Where somebody may not run on all host CPUs, each node knows the least deadline of its subtree for each CPU: `pick` costs the
same, `insert` and `remove` cost a bounded number of steps a level and CPU.
"""
from typing import Final

from hypervisor.lang import struct, u32, u64, wrap_u32, wrap_u64
from hypervisor.model import MAX_CPUS, FairTree, Share
from hypervisor.sched.cpus import has

WRAPPED: Final[u64] = 1 << 63
SEED: Final = 0x9E37_79B9


@struct
class Priorities:
    """State of the generator (xorshift32); 0: not started."""

    state: u32


priorities: Final = Priorities()


def before(a: u64, b: u64) -> bool:
    """Is virtual time a earlier than b?"""
    return wrap_u64(a - b) >= WRAPPED


def insert(tree: FairTree, node: Share) -> None:
    """Put in a competitor that is not in; its virtual time and deadline stay as they are until it is taken out."""
    assert not node.queued
    node.queued = True
    node.priority = _next_priority()
    node.left = None
    node.right = None
    _refresh(tree, node)
    parent: Share | None = None
    place: Share | None = tree.root
    while place is not None:
        parent = place
        _include(tree, place, node)
        place = place.left if before(node.virtual_time, place.virtual_time) else place.right
    node.parent = parent
    if parent is None:
        tree.root = node
    elif before(node.virtual_time, parent.virtual_time):
        parent.left = node
    else:
        parent.right = node
    while parent is not None and parent.priority < node.priority:
        _lift(tree, node, parent)
        parent = node.parent


def remove(tree: FairTree, node: Share) -> None:
    """Take one out."""
    assert node.queued
    node.queued = False
    child = _upper(node)
    while child is not None:
        _lift(tree, child, node)
        child = _upper(node)
    parent: Share | None = node.parent
    if parent is None:
        tree.root = None
    elif parent.left == node:
        parent.left = None
    else:
        parent.right = None
    node.parent = None
    while parent is not None:
        _refresh(tree, parent)
        parent = parent.parent


def pick(tree: FairTree, cpu: u32) -> Share | None:
    """Of those that may run on this CPU, the one of least deadline among those whose virtual time the average has reached;
    the earliest if it has reached none.

    Down the path that divides those reached from the others: all that hangs to the left of it is eligible, and the root of
    each such subtree knows its least deadline. Then down into the best of them.
    """
    if tree.bound:
        return _pick_there(tree, cpu & (MAX_CPUS - 1))
    best: Share | None = None
    subtree: Share | None = None
    deadline: u64 = 0
    place: Share | None = tree.root
    while place is not None:
        if before(tree.average, place.virtual_time):
            place = place.left
            continue
        if best is None or before(place.deadline, deadline):
            best = place
            subtree = None
            deadline = place.deadline
        left = place.left
        if left is not None and before(left.earliest, deadline):
            subtree = left
            deadline = left.earliest
        place = place.right
    if best is None:
        return _first(tree)
    return best if subtree is None else _due(subtree)


def _due(subtree: Share) -> Share:
    """Who has the least deadline of a subtree."""
    place: Share = subtree
    while place.deadline != place.earliest:
        left = place.left
        right = place.right
        if left is not None and left.earliest == place.earliest:
            place = left
        else:
            assert right is not None
            place = right
    return place


def _first(tree: FairTree) -> Share | None:
    place = tree.root
    if place is None:
        return None
    left = place.left
    while left is not None:
        place = left
        left = place.left
    return place


def _pick_there(tree: FairTree, cpu: u32) -> Share | None:
    """As pick, looking only at those that may run there."""
    best: Share | None = None
    subtree: Share | None = None
    deadline: u64 = 0
    place: Share | None = tree.root
    while place is not None:
        if before(tree.average, place.virtual_time):
            place = place.left
            continue
        if has(place.cpus, cpu) and (best is None or before(place.deadline, deadline)):
            best = place
            subtree = None
            deadline = place.deadline
        left = place.left
        if left is not None and has(left.reach, cpu) and (best is None or before(left.by_cpu[cpu], deadline)):
            best = place
            subtree = left
            deadline = left.by_cpu[cpu]
        place = place.right
    if best is None:
        return _first_there(tree, cpu)
    return best if subtree is None else _due_there(subtree, cpu)


def _due_there(subtree: Share, cpu: u32) -> Share:
    place: Share = subtree
    while not has(place.cpus, cpu) or place.deadline != place.by_cpu[cpu]:
        left = place.left
        right = place.right
        if left is not None and has(left.reach, cpu) and left.by_cpu[cpu] == place.by_cpu[cpu]:
            place = left
        else:
            assert right is not None
            place = right
    return place


def _first_there(tree: FairTree, cpu: u32) -> Share | None:
    place = tree.root
    while place is not None:
        left = place.left
        if left is not None and has(left.reach, cpu):
            place = left
        elif has(place.cpus, cpu):
            return place
        else:
            place = place.right
    return None


def _upper(node: Share) -> Share | None:
    """Its child of the greater priority; None: it has none."""
    left = node.left
    right = node.right
    if left is None:
        return right
    if right is None or left.priority >= right.priority:
        return left
    return right


def _lift(tree: FairTree, node: Share, parent: Share) -> None:
    """Exchange a node with its parent; the order stays."""
    over = parent.parent
    if parent.left == node:
        inner = node.right
        parent.left = inner
        node.right = parent
    else:
        inner = node.left
        parent.right = inner
        node.left = parent
    if inner is not None:
        inner.parent = parent
    parent.parent = node
    node.parent = over
    if over is None:
        tree.root = node
    elif over.left == parent:
        over.left = node
    else:
        over.right = node
    _refresh(tree, parent)
    _refresh(tree, node)


def _refresh(tree: FairTree, node: Share) -> None:
    """What a node knows of its subtree, from what its children know of theirs."""
    node.earliest = node.deadline
    if tree.bound:
        node.reach = node.cpus
        for cpu in range(MAX_CPUS):
            node.by_cpu[cpu] = node.deadline
    left = node.left
    if left is not None:
        _include(tree, node, left)
    right = node.right
    if right is not None:
        _include(tree, node, right)


def _include(tree: FairTree, node: Share, below: Share) -> None:
    """A node learns of a subtree below it."""
    if before(below.earliest, node.earliest):
        node.earliest = below.earliest
    if tree.bound:
        for cpu in range(MAX_CPUS):
            if has(below.reach, u32(cpu)) and (not has(node.reach, u32(cpu)) or before(below.by_cpu[cpu], node.by_cpu[cpu])):
                node.by_cpu[cpu] = below.by_cpu[cpu]
        node.reach |= below.reach


def _next_priority() -> u32:
    x: u32 = priorities.state
    if x == 0:
        x = SEED
    x = wrap_u32(x ^ wrap_u32(x << 13))
    x = x ^ (x >> 17)
    x = wrap_u32(x ^ wrap_u32(x << 5))
    priorities.state = x
    return x
