"""Proof that the protections hold: each forbidden access is tried, and must fault. Debug images run it at boot, on each CPU.

SMEP and UMIP guard against code of CPL 3, which Krait has none of: that they are on is read back.
"""
from typing import Annotated, Final

from hypervisor.addresses import PAGE_SHIFT
from hypervisor.arch_x86 import guest_pages, idt, paging, stacks
from hypervisor.arch_x86.intrinsics import clac, invlpg, probe_execute, probe_read, probe_write, read_cr4, stac
from hypervisor.lang import address, link_address, struct, u8, u64
from hypervisor.memory import ledger
from hypervisor.model import MAX_CPUS

RET: Final = 0xC3


@struct
class Scratch:
    """Writable memory with a RET in it."""

    code: Annotated[list[u8], 16]


scratch: Final = Scratch()


def first_failure() -> str:
    """The first protection that does not hold, in words; empty: all hold."""
    scratch.code[0] = RET
    if not probe_write(address(scratch)) or not probe_read(link_address("__rodata_start")):
        return "ordinary accesses work"
    if not probe_execute(link_address("probe_failed") + 2):
        return "code executes"
    if probe_read(0) or probe_write(4095):
        return "page 0 is not mapped"
    for cpu in range(MAX_CPUS):
        for i in range(stacks.STACKS):
            if probe_read(stacks.guard_page(cpu, i)) or probe_read(stacks.guard_page(cpu, i) + 4095):
                return "guard pages are not mapped"
    if probe_write(link_address("__text_start")):
        return "text is not writable"
    if probe_write(link_address("__rodata_start")):
        return "rodata is not writable"
    if probe_write(address(paging.pool)) or probe_write(address(idt.tables)) or probe_write(stacks.area(0)):
        return "page tables, GDT and IDT are not writable"
    if probe_execute(address(scratch)):
        return "data does not execute"
    if read_cr4() & paging.protections() != paging.protections():
        return "SMEP, SMAP and UMIP are on where the CPU has them"
    if read_cr4() & paging.CR4_PKE != 0:
        return "protection keys are off"
    if guest_pages.pages.tables != 0 and not windows_hold():
        return "guests' memory is touched in windows only"
    return ""


def windows_hold() -> bool:
    """A page that a guest may have can be used in a window, and neither read nor written without."""
    page: u64 = u64(ledger.book.first_free) << PAGE_SHIFT
    invlpg(page)  # it may have been the hypervisor's when this CPU looked last
    stac()
    reached = probe_read(page) and probe_write(page)
    clac()
    return reached and not probe_read(page) and not probe_write(page)
