"""One #VMEXIT, decoded into vendor-free terms before any handler sees it."""
from enum import IntEnum
from typing import Annotated, Final

from hypervisor.lang import struct, u32, u64

REGISTER_UNKNOWN: Final = 16  # VmExit.register: exit_completion has to read the instruction


class Cause(IntEnum):
    """Why the guest stopped running. exits.dispatch has one handler file for each."""

    INTERRUPT = 0  # a host interrupt, or nothing to do (timer slice over)
    NMI = 1
    INTERRUPT_WINDOW = 2
    CPUID = 3
    HYPERCALL = 4
    IO = 5
    RDMSR = 6
    WRMSR = 7
    HLT = 8
    NESTED_FAULT = 9
    CR_ACCESS = 10
    DR_ACCESS = 11
    XSETBV = 12
    EXCEPTION = 13
    TRIPLE_FAULT = 14
    RDTSC = 15
    INVLPG = 16
    PAUSE = 17
    MONITOR_MWAIT = 18
    VMX_SVM_INSTRUCTION = 19  # VMXON, VMRUN ...: #UD into the guest
    WBINVD = 20
    ENTRY_FAILURE = 21
    UNKNOWN = 22
    RDPMC = 23


EXIT_CAUSES: Final = 24
CAUSE_NAMES: Final[Annotated[list[str], EXIT_CAUSES]] = [
    "interrupt", "nmi", "interrupt window", "cpuid", "hypercall", "io", "rdmsr", "wrmsr", "hlt", "nested fault",
    "cr access", "dr access", "xsetbv", "exception", "triple fault", "rdtsc", "invlpg", "pause", "monitor/mwait",
    "virtualization", "wbinvd", "entry failure", "unknown", "rdpmc"]


@struct
class VmExit:
    """What backend.decode fills in; fields beyond cause and length are valid for the causes named."""

    cause: Cause
    length: u32  # bytes of the instruction that exited; 0 where RIP must not move or the length is unknown
    # IO
    port: u32
    size: u32  # IO: 1, 2, 4; CR_ACCESS: unused
    is_in: bool
    is_string: bool
    is_rep: bool
    # NESTED_FAULT
    is_write: bool
    is_fetch: bool
    in_page_walk: bool  # the access was the guest's own page-table walk
    gpa: u64
    # EXCEPTION; INTERRUPT: the vector that VT-x has acknowledged, 0: none (let pending interrupts in)
    vector: u32
    error_code: u32
    # CR_ACCESS, DR_ACCESS: MOV to (is_write) or from control register number with general register (Registers order)
    number: u32
    register: u32
    # event whose delivery was interrupted by this exit, to be injected again (VT-x IDT-vectoring format), 0: none
    idt_vectoring: u32
    idt_vectoring_error: u32
    # for dumps, by backend.fill_raw
    raw_reason: u64
    raw_info1: u64
    raw_info2: u64
