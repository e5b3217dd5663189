"""Counts the instructions of a pick and of a whole switch, for each policy and for 2 to 256 vCPUs, and prints them on port 0xE9; for
the default policy once more while a trace is recorded."""
from typing import Annotated, Final

from hypervisor.abi_trace import TraceRecord
from hypervisor.arch_x86.intrinsics import outb, rdtsc
from hypervisor.lang import address, array, char_at, struct, u32, u64
from hypervisor.model import Vcpu, Vm
from hypervisor.sched import policy
from hypervisor.sched.trace import RING_RECORDS, begin, trace

MOST: Final = 256
VCPUS_PER_VM: Final = 4
DECISIONS: Final = 2000
QUANTUM: Final = 1_000_000
SIZES: Final[Annotated[list[u32], 4]] = [2, 16, 64, 256]

vms: Final[Annotated[list[Vm], 64]] = array(Vm, 64)
vcpus: Final[Annotated[list[Vcpu], MOST]] = array(Vcpu, MOST)
ring: Final[Annotated[list[TraceRecord], RING_RECORDS]] = array(TraceRecord, RING_RECORDS)


@struct
class Cost:
    """Instructions of `pick` alone, and of charge, requeue, pick and slice_of."""

    pick: u64
    switch: u64


def say(text: str) -> None:
    """Print a line on the debug console."""
    i: u64 = 0
    while char_at(text, i) != 0:
        outb(0xE9, char_at(text, i))
        i += 1


def measure(count: u32, cost: Cost) -> None:
    """Mean instructions with `count` vCPUs that always want the CPU."""
    for i in range(count):
        vcpu = vcpus[i]
        vm = vms[i // VCPUS_PER_VM]
        vm.weight = 100 + i // VCPUS_PER_VM
        vcpu.vm = vm
        vcpu.weight = vm.weight
        policy.enqueue(vcpu, 0)
    now: u64 = 0
    cost.pick = 0
    cost.switch = 0
    running = policy.pick(0, now)
    for _ in range(DECISIONS):
        assert running is not None
        begun = rdtsc()
        now += QUANTUM
        policy.charge(running, QUANTUM, now)
        policy.requeue(running, now)
        asked = rdtsc()
        running = policy.pick(0, now)
        cost.pick += rdtsc() - asked
        assert running is not None
        policy.slice_of(running, now)
        cost.switch += rdtsc() - begun
    for i in range(count):
        policy.dequeue(vcpus[i], now)
    cost.pick = cost.pick // DECISIONS
    cost.switch = cost.switch // DECISIONS


def main() -> None:
    """Called by start.S in long mode."""
    cost = Cost()
    policy.start(QUANTUM, 1)
    for which in range(policy.POLICIES):
        policy.select(u32(which), 0)
        for count in SIZES:
            measure(count, cost)
            say(f"pick {policy.POLICY_NAMES[which]} {count} {cost.pick} {cost.switch}\n")
    trace.rings[0].place = address(ring)
    policy.select(0, 0)
    for count in SIZES:
        begin(0, 1, QUANTUM, 0)
        measure(count, cost)
        assert trace.on, "the ring is large enough"
        say(f"traced {policy.POLICY_NAMES[0]} {count} {cost.switch}\n")
    outb(0xF4, 0)
