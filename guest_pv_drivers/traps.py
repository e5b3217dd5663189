"""Exceptions in this kernel: a readable dump, then the CRASH call."""
from typing import Annotated, Final

from guest_pv_drivers import console
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import struct, u64

PAGE_FAULT: Final = 14
EXCEPTIONS: Final = 32
EXCEPTION: Final[Annotated[list[str], 32]] = [
    "divide error", "debug", "NMI", "breakpoint", "overflow", "bound", "invalid opcode", "no FPU",
    "double fault", "coprocessor overrun", "invalid TSS", "segment not present", "stack fault", "general protection",
    "page fault", "reserved 15", "x87 error", "alignment", "machine check", "SIMD error", "virtualization",
    "control protection", "reserved 22", "reserved 23", "reserved 24", "reserved 25", "reserved 26", "reserved 27",
    "hypervisor injection", "VMM communication", "security", "reserved 31"]


@struct
class TrapFrame:
    """What the stubs of start.S and the CPU push; 8 bytes each."""

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


def crash(frame: TrapFrame) -> None:
    """Print what happened, then stop this VM."""
    console.say(f"guest trap: {EXCEPTION[frame.vector & 31]}, error {frame.error:#x}, cr2 {intrinsics.read_cr2():#x}")
    console.say(f"  rip {frame.rip:016x} rsp {frame.rsp:016x} rbp {frame.rbp:016x} rflags {frame.rflags:#x}")
    console.say(f"  rax {frame.rax:016x} rcx {frame.rcx:016x} rdx {frame.rdx:016x} rbx {frame.rbx:016x}")
    console.say(f"  rsi {frame.rsi:016x} rdi {frame.rdi:016x} r8  {frame.r8:016x} r9  {frame.r9:016x}")
    console.say(f"  r10 {frame.r10:016x} r11 {frame.r11:016x} r12 {frame.r12:016x} r13 {frame.r13:016x}")
    console.say(f"  r14 {frame.r14:016x} r15 {frame.r15:016x}")
    console.crash(f"guest trap: {EXCEPTION[frame.vector & 31]} at {frame.rip:#x}")
