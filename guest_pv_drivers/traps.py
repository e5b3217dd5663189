"""Exceptions in this kernel: a readable dump, then the CRASH call."""
from guest_pv_drivers import console
from hypervisor.arch_x86 import intrinsics
from hypervisor.arch_x86.trap_frame import EXCEPTION_NAMES, TrapFrame


def crash(frame: TrapFrame) -> None:
    """Print what happened, then stop this VM."""
    console.say(f"guest trap: {EXCEPTION_NAMES[frame.vector & 31]}, error {frame.error:#x}, cr2 {intrinsics.read_cr2():#x}")
    console.say(f"  rip {frame.rip:016x} rsp {frame.rsp:016x} rbp {frame.rbp:016x} rflags {frame.rflags:#x}")
    console.say(f"  rax {frame.rax:016x} rcx {frame.rcx:016x} rdx {frame.rdx:016x} rbx {frame.rbx:016x}")
    console.say(f"  rsi {frame.rsi:016x} rdi {frame.rdi:016x} r8  {frame.r8:016x} r9  {frame.r9:016x}")
    console.say(f"  r10 {frame.r10:016x} r11 {frame.r11:016x} r12 {frame.r12:016x} r13 {frame.r13:016x}")
    console.say(f"  r14 {frame.r14:016x} r15 {frame.r15:016x}")
    console.crash(f"guest trap: {EXCEPTION_NAMES[frame.vector & 31]} at {frame.rip:#x}")
