"""Traces of scheduling, version 2: what hypervisor, channel and host tools share. No logic. docs/scheduling.md tells how to take one.

A trace is a TraceHeader and its records, in the order of their numbers. Every call of sched/policy.py that changes something is a record,
with what it answered; everybody begins at the start of the trace with no past, so that the calls alone decide everything.
"""
from enum import IntEnum
from typing import Annotated, Final

from hypervisor.lang import struct, u8, u16, u32, u64

TRACE_MAGIC: Final = 0x4B72_5472  # "rTrK"
TRACE_VERSION: Final = 2
NO_VCPU: Final = 0xFFFF
RECORDS_A_FRAME: Final = 16  # of the channel


class TracePart(IntEnum):
    """Stream of a TRACE frame: what its payload is."""

    HEADER = 0  # TraceHeader
    RECORDS = 1  # TraceRecords of one CPU, in order
    END = 2  # TraceHeader once more: all has been sent


class TraceKind(IntEnum):
    """What a record tells. `value` and `answer` in brackets."""

    VM = 0  # a VM as it is: (weight, set of CPUs)
    LIMITS = 1  # (period of its cap in ticks, cap in percent | reservation << 16)
    CAP_LEFT = 2  # (ticks left in the period, as i64)
    CAP_END = 3  # (when the period ends)
    VCPU = 4  # a vCPU as it is: (weight, the one CPU it is pinned to as a set, or 0); cpu: where it ran last
    RUNS = 5  # it runs at the start of the trace: (since when)
    ENQUEUE = 6  # (, CPUs asked to pick)
    REQUEUE = 7
    DEQUEUE = 8
    PICK = 9  # vcpu: NO_VCPU: nobody
    CHARGE = 10  # (ticks)
    SLICE = 11  # (ticks)
    STRANDED = 12  # (, CPUs asked)
    REFILL = 13
    YIELD = 14
    YIELD_TO = 15  # (number of the sibling)
    SELECT = 16  # (policy)
    WEIGHT = 17  # (weight)
    CAP = 18  # (period, percent)
    RESERVE = 19  # (percent)
    CPUS = 20  # (set); without a vCPU: some VM is bound to CPUs from now on
    PIN = 21  # (the one CPU that it is pinned to from now on as a set, or 0)


@struct
class TraceHeader:
    """Times are TSC ticks of the host."""

    magic: u32  # TRACE_MAGIC
    version: u16  # TRACE_VERSION
    record_bytes: u16  # of a TraceRecord
    session: u32  # counts traces since boot
    policy: u32  # at the start
    cpus: u32
    records: u32
    khz: u64  # of the TSC
    quantum: u64
    began: u64
    full: u32  # 1: it ended because a CPU's ring was full
    pinned: u32  # 1: some VM or vCPU was bound to CPUs at the start
    asked: u32  # CPUs, one bit each, that were to pick at the start
    unlimited: u32  # CPUs whose slice did not end


@struct
class TraceName:
    """In a file, behind the header: what a VM is called. One without a name ends the list."""

    vm: u32
    name: Annotated[list[u8], 32]


@struct
class TraceRecord:
    """One call."""

    time: u64
    value: u64
    answer: u32
    vm: u32  # handle, as on the channel
    number: u32  # from 0, over all CPUs
    vcpu: u16
    cpu: u8
    kind: u8  # TraceKind
