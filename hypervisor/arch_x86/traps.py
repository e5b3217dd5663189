"""Exceptions and interrupts inside the hypervisor. An exception is a bug of ours or broken hardware: it is the end,
with registers, cause in words and a back-trace; only the probes of entry.S are allowed to fault."""
from typing import Final

from hypervisor import lock
from hypervisor.abi import EXIT_PANIC
from hypervisor.arch_x86 import backtrace, guest_pages, host_interrupts, machine_exit, serial, stacks
from hypervisor.arch_x86.intrinsics import halt_forever, load_u64, read_cr0, read_cr2, read_cr3, read_cr4
from hypervisor.arch_x86.trap_frame import EXCEPTION_NAMES, EXCEPTIONS, PAGE_FAULT, TrapFrame
from hypervisor.console import capture, hide_prompt, say
from hypervisor.cpu import this_cpu
from hypervisor.lang import link_address, struct, u32, u64
from hypervisor.model import Cpu

NMI: Final = 2
DOUBLE_FAULT: Final = 8

# Page-fault error code, Intel SDM vol. 3A 4.7.
PF_PRESENT: Final = 1
PF_WRITE: Final = 2
PF_USER: Final = 4
PF_RESERVED: Final = 8
PF_FETCH: Final = 16
PF_PROTECTION_KEY: Final = 32


@struct
class TrapState:
    """How often an exception was fatal: one inside the dump of another only halts."""

    fatal: u32


state: Final = TrapState()


def trap(frame: TrapFrame) -> None:
    """Called by entry.S for every vector, interrupts off, on the interrupted stack or an IST stack."""
    if frame.vector >= EXCEPTIONS:
        _interrupt(this_cpu(), u32(frame.vector))
    elif frame.vector == NMI and machine_exit.is_stopped():
        machine_exit.stop_here()
    elif not _was_probe(frame) and not _was_stale(frame):
        _die(frame)


def _interrupt(cpu: Cpu, vector: u32) -> None:
    """A host interrupt, in idle without the lock or in poll with it."""
    if cpu.halted:
        lock.acquire()
        host_interrupts.handle(cpu, vector)
        lock.release()
    else:
        host_interrupts.handle(cpu, vector)


def _was_probe(frame: TrapFrame) -> bool:
    """A page fault of a probe in entry.S: go on where it answers no."""
    if frame.vector != PAGE_FAULT:
        return False
    if _in_probes(frame.rip):
        frame.rip = link_address("probe_failed")
        return True
    # probe_execute: the fetch at its target failed, the return address into the probe is on top of the stack
    if frame.error & PF_FETCH != 0 and stacks.holds(frame.rsp, 8) and _in_probes(load_u64(frame.rsp)):
        frame.rip = link_address("probe_failed")
        frame.rsp += 8
        return True
    return False


def _was_stale(frame: TrapFrame) -> bool:
    """A page fault by rights of a frame that have changed since this CPU looked: try again."""
    return frame.vector == PAGE_FAULT and frame.error & ~u64(PF_WRITE) == PF_PRESENT and guest_pages.drop_stale(read_cr2())


def _in_probes(rip: u64) -> bool:
    return link_address("probe_start") <= rip and rip < link_address("probe_end")


def _die(frame: TrapFrame) -> None:
    machine_exit.stop_others()
    state.fatal += 1
    if state.fatal == 1:
        capture.active = False
        hide_prompt()
        serial.flush()
    if state.fatal > 2:
        halt_forever()
    say("")
    vector = frame.vector % EXCEPTIONS
    say(f"PANIC: {EXCEPTION_NAMES[vector]} (vector {vector}, error code {frame.error:#x}) at {frame.rip:016x}")
    machine_exit.say_which_cpu()
    if state.fatal > 1:
        say("  inside the dump of another exception")
        machine_exit.leave(EXIT_PANIC)
    _explain(frame)
    _show_registers(frame)
    backtrace.show_from(frame.rip, frame.rbp)
    machine_exit.leave(EXIT_PANIC)


def _explain(frame: TrapFrame) -> None:
    """Say the cause in words."""
    if frame.vector == PAGE_FAULT:
        _explain_page_fault(frame.error, read_cr2(), frame.rip)
    elif frame.vector == DOUBLE_FAULT and stacks.is_guard(read_cr2()):
        say(f"  cause: stack overflow, the push at {read_cr2():016x} hit the guard page")
    elif frame.vector == NMI:
        say("  cause: a non-maskable interrupt: watchdog, hardware error, or the operator's request")
    elif frame.error != 0 and frame.vector in (10, 11, 12, 13):
        say(f"  cause: segment selector {frame.error & 0xFFF8:#x} of the {_table_of(frame.error)}")
    elif frame.vector == 13:
        say("  cause: non-canonical address, reserved bit, privileged register or misaligned operand")
    elif frame.vector == 6:
        say("  cause: a check compiled into the code failed, or the CPU lacks the instruction")


def _table_of(error: u64) -> str:
    if error & 2 != 0:
        return "IDT"
    return "LDT" if error & 4 != 0 else "GDT"


def _explain_page_fault(error: u64, target: u64, rip: u64) -> None:
    access = "write to"
    if error & PF_FETCH != 0:
        access = "execution of"
    elif error & PF_WRITE == 0:
        access = "read of"
    why = "which is not mapped"
    if error & PF_RESERVED != 0:
        why = "whose page-table entry has a reserved bit set"
    elif error & PF_PROTECTION_KEY != 0:
        why = "which its protection key forbids"
    elif error & PF_PRESENT != 0:
        why = "which guests may have, outside a window" if guest_pages.is_guests(target) else "which its page's rights forbid"
    if target < 4096:
        why = "through a null reference"
    elif stacks.is_guard(target):
        why = "in a guard page: stack overflow"
    mode = "user" if error & PF_USER != 0 else "supervisor"
    say(f"  cause: {mode} {access} {target:016x}, {why}")


def _show_registers(f: TrapFrame) -> None:
    say(f"  rax {f.rax:016x}  rbx {f.rbx:016x}  rcx {f.rcx:016x}  rdx {f.rdx:016x}")
    say(f"  rsi {f.rsi:016x}  rdi {f.rdi:016x}  rbp {f.rbp:016x}  rsp {f.rsp:016x}")
    say(f"  r8  {f.r8:016x}  r9  {f.r9:016x}  r10 {f.r10:016x}  r11 {f.r11:016x}")
    say(f"  r12 {f.r12:016x}  r13 {f.r13:016x}  r14 {f.r14:016x}  r15 {f.r15:016x}")
    say(f"  rip {f.rip:016x}  cs  {f.cs:#x}  ss  {f.ss:#x}  rflags {f.rflags:08x}{_flags(f.rflags)}")
    say(f"  cr0 {read_cr0():08x}  cr2 {read_cr2():016x}  cr3 {read_cr3():016x}  cr4 {read_cr4():08x}")


def _flags(rflags: u64) -> str:
    return "  interrupts on" if rflags & 0x200 != 0 else "  interrupts off"
