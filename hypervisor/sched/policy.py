"""Who runs next: the one interface to the scheduling policies, one file each, exchangeable while guests run.

A vCPU competes from `enqueue` to `dequeue`, and in between waits or runs (`pick` to `requeue`). A policy is seven functions,
all about vCPUs that compete: `woken` (it begins to, waiting), `preempted` (it ran and waits again), `left` (it waits or runs,
and stops competing), `pick` (take out who runs next; None: nobody waits), `charge` (TSC ticks that it ran, or the hypervisor
on its behalf, up to `now`), `yielded` (it runs and gives way; whoever else waits comes first once in any case), `slice_of`
(ticks until the policy wants to be asked again, if others wait). A policy keeps its state in a struct of its own and in the
fields of Vcpu and Vm that model.py marks with its name; it may take each other vCPU for one of its own. docs/scheduling.md
tells how to write one.
"""
from enum import IntEnum
from typing import Annotated, Final

from hypervisor.cpu import cpus
from hypervisor.lang import struct, u32, u64
from hypervisor.model import Cpu, Vcpu, Vm
from hypervisor.sched import bvt, credit, eevdf, lottery, round_robin, stride
from hypervisor.sched.quantum import quantum
from hypervisor.status import Status

WEIGHT_MIN: Final = 1
WEIGHT_MAX: Final = 1 << 20
POLICIES: Final = 6


class Policy(IntEnum):
    """Index into the tables below."""

    EEVDF = 0
    ROUND_ROBIN = 1
    STRIDE = 2
    LOTTERY = 3
    BVT = 4
    CREDIT = 5


POLICY_NAMES: Final[Annotated[list[str], POLICIES]] = ["eevdf", "round-robin", "stride", "lottery", "bvt", "credit"]
WOKEN: Final = (eevdf.woken, round_robin.woken, stride.woken, lottery.woken, bvt.woken, credit.woken)
PREEMPTED: Final = (eevdf.preempted, round_robin.preempted, stride.preempted, lottery.preempted, bvt.preempted, credit.preempted)
LEFT: Final = (eevdf.left, round_robin.left, stride.left, lottery.left, bvt.left, credit.left)
PICK: Final = (eevdf.pick, round_robin.pick, stride.pick, lottery.pick, bvt.pick, credit.pick)
CHARGE: Final = (eevdf.charge, round_robin.charge, stride.charge, lottery.charge, bvt.charge, credit.charge)
YIELDED: Final = (eevdf.yielded, round_robin.yielded, stride.yielded, lottery.yielded, bvt.yielded, credit.yielded)
SLICE: Final = (eevdf.slice_of, round_robin.slice_of, stride.slice_of, lottery.slice_of, bvt.slice_of, credit.slice_of)


@struct
class Current:
    """The policy in force."""

    policy: u32
    waiting: u32  # how many vCPUs wait


current: Final = Current()


def start(quantum_ticks: u64) -> None:
    """Before anything is queued: the length of a quantum in TSC ticks, below 2^24."""
    assert 0 < quantum_ticks < 1 << 24
    quantum.ticks = quantum_ticks


def select(policy: u32) -> Status:
    """Change the policy; all join the new one, who runs at its next turn. BAD_ARGUMENT: there is none of this number."""
    if policy >= POLICIES:
        return Status.BAD_ARGUMENT
    for cpu in cpus:
        running = cpu.vcpu
        if running is not None:
            dequeue(running)
    moving: Vcpu | None = None
    vcpu = _take()
    while vcpu is not None:
        dequeue(vcpu)
        vcpu.moving = moving
        moving = vcpu
        vcpu = _take()
    current.policy = policy
    while moving is not None:
        enqueue(moving)
        moving = moving.moving
    return Status.OK


def set_weight(vm: Vm, weight: u32) -> Status:
    """Change the share of a VM; its vCPUs leave and join again, who runs at its next turn. BAD_ARGUMENT: out of range."""
    if weight < WEIGHT_MIN or weight > WEIGHT_MAX:
        return Status.BAD_ARGUMENT
    moving: Vcpu | None = None
    for member in vm.vcpus:
        if member is not None and member.competing:
            if member.waiting:
                member.moving = moving
                moving = member
            dequeue(member)
    vm.weight = weight
    for member in vm.vcpus:
        if member is not None:
            member.weight = weight
    while moving is not None:
        enqueue(moving)
        moving = moving.moving
    return Status.OK


def enqueue(vcpu: Vcpu) -> None:
    """It has become runnable."""
    assert not vcpu.competing
    vcpu.competing = True
    _wait(vcpu)
    WOKEN[current.policy](vcpu)


def requeue(cpu: Cpu, vcpu: Vcpu) -> None:
    """It was running on this CPU and still could."""
    if not vcpu.competing:  # the policy or its weight was changed meanwhile
        enqueue(vcpu)
    elif cpu.yielding:
        cpu.aside = vcpu
    else:
        _wait(vcpu)
        PREEMPTED[current.policy](vcpu)
    cpu.yielding = False


def dequeue(vcpu: Vcpu) -> None:
    """It competes no more, having waited or run; one that does not may be given."""
    if not vcpu.competing:
        return
    LEFT[current.policy](vcpu)
    vcpu.competing = False
    if vcpu.waiting:
        vcpu.waiting = False
        current.waiting -= 1


def pick(cpu: Cpu) -> Vcpu | None:
    """Take the next one to run on this CPU out of those that wait."""
    vcpu = _take()
    aside = cpu.aside
    if aside is not None:
        cpu.aside = None
        requeue(cpu, aside)
        if vcpu is None:
            vcpu = _take()
    return vcpu


def charge(vcpu: Vcpu, ticks: u64, now: u64) -> None:
    """It has used the CPU, itself or the hypervisor on its behalf, for the `ticks` before `now`."""
    vcpu.cpu_time += ticks
    if vcpu.competing:
        CHARGE[current.policy](vcpu, ticks, now)


def yield_to_others(cpu: Cpu, vcpu: Vcpu) -> None:
    """It runs on this CPU and gives way: whoever waits comes first."""
    if vcpu.competing and current.waiting != 0:
        YIELDED[current.policy](vcpu)
        cpu.yielding = True


def slice_of(vcpu: Vcpu, now: u64) -> u64:
    """TSC ticks that one just picked may run while others wait; at least one."""
    return max(SLICE[current.policy](vcpu, now), 1)


def contended() -> bool:
    """Does anyone wait for the CPU?"""
    return current.waiting != 0


def _take() -> Vcpu | None:
    vcpu = PICK[current.policy]()
    if vcpu is not None:
        vcpu.waiting = False
        current.waiting -= 1
    return vcpu


def _wait(vcpu: Vcpu) -> None:
    vcpu.waiting = True
    current.waiting += 1
