"""Runnable vCPUs that are not running, as a binary heap by a key that the policy chooses; equal keys leave in any order.

Used by the policies alone, those that keep one line. One line for all host CPUs: whoever is first runs where a CPU is free.
"""
from typing import Annotated, Final

from hypervisor.lang import struct, u32, u64
from hypervisor.model import Vcpu
from hypervisor.sched import cpus

CAPACITY: Final = 1088  # vCPUs of all VMs together; vcpu.create holds to it


@struct
class Slot:
    """One waiting vCPU."""

    key: u64
    vcpu: Vcpu | None


@struct
class RunQueue:
    """slots[1] has the least key; the children of i are 2i and 2i+1. slots[0] is not used."""

    count: u32
    slots: Annotated[list[Slot], CAPACITY + 1]


queue: Final = RunQueue()


def insert(vcpu: Vcpu, key: u64) -> None:
    """Add a vCPU that is not in the queue."""
    assert vcpu.run_queue_index == 0 and queue.count < CAPACITY
    queue.count += 1
    _rise(vcpu, key, queue.count)


def remove(vcpu: Vcpu) -> None:
    """Take a vCPU out; one that is not in the queue may be given."""
    index = vcpu.run_queue_index
    if index == 0:
        return
    vcpu.run_queue_index = 0
    last = _vcpu(queue.count)
    key = queue.slots[queue.count].key
    queue.slots[queue.count].vcpu = None
    queue.count -= 1
    if index > queue.count:
        return
    if key < queue.slots[index].key:
        _rise(last, key, index)
    else:
        _sink(last, key, index)


def move(vcpu: Vcpu, key: u64) -> None:
    """Give a vCPU a new key; one that is not in the queue may be given, and stays out."""
    if vcpu.run_queue_index != 0:
        remove(vcpu)
        insert(vcpu, key)


def first(cpu: u32) -> Vcpu | None:
    """The vCPU of the least key that may run there; None: there is none. O(1) if the very first may, else O(n)."""
    best: u32 = 0
    for index in range(1, queue.count + 1):
        if cpus.may_run_on(_vcpu(u32(index)), cpu):
            if index == 1:
                return _vcpu(1)
            if best == 0 or queue.slots[index].key < queue.slots[best].key:
                best = u32(index)
    return None if best == 0 else _vcpu(best)


def at_index(index: u32) -> Vcpu:
    """The vCPU in slot `index`, 1 .. queue.count."""
    return _vcpu(index)


def place_again(index: u32, key: u64) -> None:
    """Give the vCPU in slot `index` a new key. For all slots in rising order: slots below `index` are in order already."""
    _rise(_vcpu(index), key, index)


def _vcpu(index: u32) -> Vcpu:
    vcpu = queue.slots[index].vcpu
    assert vcpu is not None
    return vcpu


def _place(vcpu: Vcpu, key: u64, index: u32) -> None:
    queue.slots[index].vcpu = vcpu
    queue.slots[index].key = key
    vcpu.run_queue_index = index


def _rise(vcpu: Vcpu, key: u64, start: u32) -> None:
    """Fill the hole `start`, or one above it where the key belongs."""
    index = start
    while index > 1 and queue.slots[index >> 1].key > key:
        _place(_vcpu(index >> 1), queue.slots[index >> 1].key, index)
        index = index >> 1
    _place(vcpu, key, index)


def _sink(vcpu: Vcpu, key: u64, start: u32) -> None:
    """Fill the hole `start`, or one below it where the key belongs."""
    index = start
    while 2 * index <= queue.count:
        child: u32 = 2 * index
        if child < queue.count and queue.slots[child + 1].key < queue.slots[child].key:
            child += 1
        if key <= queue.slots[child].key:
            break
        _place(_vcpu(child), queue.slots[child].key, index)
        index = child
    _place(vcpu, key, index)
