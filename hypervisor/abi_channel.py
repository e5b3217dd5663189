"""The channel on COM2, version 1: frames and what is in them, shared by hypervisor and host tools. No logic. docs/channel.md.

A frame is FrameHeader, `length` bytes of payload, and the CRC-32 (IEEE 802.3) of the payload. Numbers are little-endian.
"""
from enum import IntEnum
from typing import Annotated, Final

from hypervisor.arch_x86.vm_exit import EXIT_CAUSES
from hypervisor.lang import i64, struct, u8, u16, u32, u64

CHANNEL_VERSION: Final = 1
FRAME_MAGIC: Final = 0x4BA5
HEADER_BYTES: Final = 12
HEADER_CHECKED: Final = 10  # bytes of the header that header_check covers
CRC_BYTES: Final = 4
PAYLOAD_MOST: Final = 512


class FrameKind(IntEnum):
    """What a frame is. `stream` is a VM's handle, or a number that the host chose for a request."""

    HELLO = 0  # both ways, Hello: the hypervisor's at boot, and as the answer to the host's
    COMMAND = 1  # to the hypervisor: a line as at the operator's prompt
    TEXT = 2  # to the host: a piece of what the command prints, lines ended by a newline
    QUERY = 3  # to the hypervisor, Query
    VM = 4  # to the host, VmRecord
    HOST = 5  # to the host, HostRecord
    END = 6  # to the host, End: the request is done
    CONSOLE = 7  # both ways: bytes of a guest's console
    CREDIT = 8  # both ways, Credit: so many more bytes of this console may be sent to me. The host's first one opens it
    CLOSE = 9  # to the hypervisor: no more of this console
    EVENT = 10  # to the host, EventRecord
    LOG = 11  # to the host, LogRecord
    REFUSED = 12  # to the host, Refused: a frame of yours was taken for nothing
    TRACE = 13  # to the host: a piece of a trace; stream: abi_trace.TracePart


FRAME_KINDS: Final = 14


class QueryKind(IntEnum):
    """What can be asked for."""

    VMS = 0  # a VmRecord for each VM
    HOST = 1  # one HostRecord


class EventKind(IntEnum):
    """What can happen to a VM, or to the machine."""

    CREATED = 0
    STARTED = 1
    PAUSED = 2
    RESUMED = 3
    ENDED = 4  # code: its exit code
    CRASHED = 5  # text: why; the dump has gone through the log before
    REBOOTING = 6  # text: by what
    RELEASED = 7  # all that it held has been given back
    DESTROYED = 8  # its place in the table is free: the handle is never valid again
    PRESSURE = 9  # memory is short (handle 0); code: frames asked for
    RELIEVED = 10  # it is not any more


class Refusal(IntEnum):
    """Why a frame was taken for nothing."""

    KIND = 0  # not one that the host may send
    LENGTH = 1
    HANDLE = 2  # no VM has it (any more)
    QUERY = 3
    CREDIT = 4  # more bytes than were allowed: they are lost


@struct(packed=True)
class FrameHeader:
    """12 bytes."""

    magic: u16  # FRAME_MAGIC
    version: u8  # CHANNEL_VERSION
    kind: u8  # FrameKind
    stream: u32
    length: u16  # of the payload, at most PAYLOAD_MOST
    header_check: u16  # low half of the CRC-32 of the ten bytes before


WANT_EVENTS: Final = 1  # bits of Hello.flags, from the host
WANT_LOG: Final = 2
WANT_CONSOLES: Final = 4  # open each console, those of VMs to come too, with CONSOLE_CREDIT


@struct
class Hello:
    """Who speaks. The host's starts anew: consoles are closed, answers to come are dropped."""

    version: u32
    flags: u32
    payload_most: u32
    console_bytes: u32  # that the hypervisor keeps for each console; the host's CREDIT need not be more


@struct
class Query:
    """What the host wants to know."""

    what: u32  # QueryKind


@struct
class End:
    """A request is done."""

    refused: u32  # 1: the command said no
    lost: u32  # bytes of text that did not fit


@struct
class Credit:
    """Bytes."""

    bytes: u32


@struct
class Refused:
    """Why."""

    why: u32  # Refusal
    kind: u32  # of the frame refused


@struct
class EventRecord:
    """Something has happened; stream is the VM's handle."""

    number: u64  # of events since boot, so that a gap is seen
    us: u64  # since boot
    kind: u32  # EventKind
    code: u32
    name: Annotated[list[u8], 32]
    text: Annotated[list[u8], 64]


@struct
class LogRecord:
    """One message of the hypervisor; stream counts them, so that a gap is seen."""

    us: u64
    level: u32  # log.Level
    reserved: u32
    text: Annotated[list[u8], 120]


@struct
class VmRecord:
    """One VM, as it is now; stream is the request's. Times in ns, counts since it was made."""

    handle: u32
    state: u32  # model.VmState
    kind: u32  # abi.VM_KIND_*
    weight: u32
    vcpu_count: u32
    exit_code: u32
    reboots: u32
    runnable: u32  # vCPUs that run or wait for a CPU now
    name: Annotated[list[u8], 32]
    memory_bytes: u64
    private_frames: u64
    overhead_frames: u64  # nested tables included
    pressure_frames: u64
    guest_ns: u64  # guest time
    cpu_ns: u64
    steal_ns: u64  # wanted to run and did not
    lag_ns: i64  # owed by the scheduler (above 0) or to it; 0 where the policy keeps no lag
    wakes: u64
    wake_ns: u64  # the sum of what they waited
    console_lost: u64  # bytes
    exits: Annotated[list[u64], EXIT_CAUSES]


@struct
class HostRecord:
    """The machine."""

    us: u64  # since boot
    idle_ns: u64  # over all CPUs
    frames: u64
    frames_free: u64
    frames_available: u64  # to guests
    frames_limit: u64
    frames_low: u64  # below that guests are asked for memory
    waiting: u64  # vCPUs that wait for a frame
    cpus: u32
    vms: u32
    policy: u32
    quantum_ns: u32
    console_dropped: u64  # bytes of COM1
    bad_frames: u64
    skipped_bytes: u64
