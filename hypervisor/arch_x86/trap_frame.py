"""What the trap stubs (trap_stubs.h) leave on the stack, and the names of exceptions; hypervisor and PV kernel share both.

Intel SDM vol. 3A 6.15, AMD APM vol. 2 8.2.
"""
from typing import Annotated, Final

from hypervisor.lang import struct, u64

PAGE_FAULT: Final = 14
EXCEPTIONS: Final = 32

EXCEPTION_NAMES: Final[Annotated[list[str], EXCEPTIONS]] = [
    "#DE divide error", "#DB debug", "NMI", "#BP breakpoint", "#OF overflow", "#BR bound range",
    "#UD invalid opcode", "#NM device not available", "#DF double fault", "coprocessor overrun", "#TS invalid TSS",
    "#NP segment not present", "#SS stack fault", "#GP general protection", "#PF page fault", "reserved 15",
    "#MF x87 error", "#AC alignment check", "#MC machine check", "#XM SIMD error", "#VE virtualization",
    "#CP control protection", "reserved 22", "reserved 23", "reserved 24", "reserved 25", "reserved 26",
    "reserved 27", "#HV hypervisor injection", "#VC VMM communication", "#SX security", "reserved 31",
]


@struct
class TrapFrame:
    """What a stub has pushed, lowest address first, then what the CPU has; 8 bytes each."""

    r15: u64
    r14: u64
    r13: u64
    r12: u64
    r11: u64
    r10: u64
    r9: u64
    r8: u64
    rdi: u64
    rsi: u64
    rbp: u64
    rbx: u64
    rdx: u64
    rcx: u64
    rax: u64
    vector: u64
    error: u64
    rip: u64
    cs: u64
    rflags: u64
    rsp: u64
    ss: u64
