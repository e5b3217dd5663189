"""Who runs next: the one interface to the scheduling policies, one file each, exchangeable while guests run.

A policy is five functions: the key of a woken and of a preempted vCPU (least runs first), what to note when one is
picked, what to charge for time run, and how one gives way to the first that waits.
"""
from enum import IntEnum
from typing import Annotated, Final

from hypervisor.lang import struct, u32, u64
from hypervisor.model import Vcpu
from hypervisor.sched import round_robin, run_queue, weighted
from hypervisor.status import Status

SLICE_NS: Final = 1_000_000
POLICIES: Final = 2


class Policy(IntEnum):
    """Index into the tables below."""

    WEIGHTED = 0
    ROUND_ROBIN = 1


POLICY_NAMES: Final[Annotated[list[str], POLICIES]] = ["weighted", "round-robin"]
WOKEN: Final = (weighted.woken, round_robin.woken)
PREEMPTED: Final = (weighted.preempted, round_robin.preempted)
PICKED: Final = (weighted.picked, round_robin.picked)
CHARGE: Final = (weighted.charge, round_robin.charge)
YIELDED: Final = (weighted.yielded, round_robin.yielded)


@struct
class Current:
    """The policy in force."""

    policy: u32


current: Final = Current()


def select(policy: u32) -> Status:
    """Change the policy; what is queued gets new keys. BAD_ARGUMENT: there is none of this number."""
    if policy >= POLICIES:
        return Status.BAD_ARGUMENT
    current.policy = policy
    for index in range(1, run_queue.queue.count + 1):
        run_queue.place_again(u32(index), woken_key(u32(index)))
    return Status.OK


def woken_key(index: u32) -> u64:
    """The key that the vCPU in a slot would get if it were woken now."""
    vcpu = run_queue.queue.slots[index].vcpu
    assert vcpu is not None
    return WOKEN[current.policy](vcpu)


def enqueue(vcpu: Vcpu) -> None:
    """It has become runnable."""
    run_queue.insert(vcpu, WOKEN[current.policy](vcpu))


def requeue(vcpu: Vcpu) -> None:
    """It was running and still could."""
    run_queue.insert(vcpu, PREEMPTED[current.policy](vcpu))


def dequeue(vcpu: Vcpu) -> None:
    """It is not runnable any more; one that is not queued may be given."""
    run_queue.remove(vcpu)


def pick() -> Vcpu | None:
    """Take the next one to run out of the queue."""
    vcpu = run_queue.first()
    if vcpu is not None:
        run_queue.remove(vcpu)
        PICKED[current.policy](vcpu)
    return vcpu


def charge(vcpu: Vcpu, ticks: u64) -> None:
    """It has used the CPU, itself or the hypervisor on its behalf, for `ticks`."""
    vcpu.cpu_time += ticks
    CHARGE[current.policy](vcpu, ticks)


def yield_to_others(vcpu: Vcpu) -> None:
    """It runs and gives way: whoever waits comes first."""
    first = run_queue.first()
    if first is not None:
        YIELDED[current.policy](vcpu, first)


def contended() -> bool:
    """Does anyone wait for the CPU?"""
    return run_queue.queue.count != 0
