"""Exit codes and what they mean, one line each (AMD APM vol. 2 rev. 3.42, appendix C); filled once at boot.

A code that is not entered is an exit nobody asked for: UNKNOWN.
"""
from typing import Annotated, Final

from hypervisor.arch_x86.defs import svm_exit
from hypervisor.arch_x86.vm_exit import Cause
from hypervisor.lang import struct, u32

CODES: Final = 0x90


@struct
class Meaning:
    """Of one code."""

    cause: Cause
    length: u32  # bytes of the instruction in its usual encoding; 0: RIP does not move, or decode tells
    more: bool  # the code is not all: decode_more


@struct
class ExitTable:
    """By code."""

    entries: Annotated[list[Meaning], CODES]


table: Final = ExitTable()


def fill(nrip_save: bool) -> None:
    """With `nrip_save` the lengths of instructions come from the VMCB."""
    for code in range(CODES):
        enter(code, Cause.UNKNOWN, 0, False)
    for code in range(svm_exit.VMEXIT_CR15_WRITE + 1):
        enter(code, Cause.CR_ACCESS, 0, True)
    for code in range(svm_exit.VMEXIT_CR15_WRITE + 1, svm_exit.VMEXIT_DR15_WRITE + 1):
        enter(code, Cause.DR_ACCESS, 0, True)
    for code in range(svm_exit.VMEXIT_EXCP0, svm_exit.VMEXIT_EXCP31 + 1):
        enter(code, Cause.EXCEPTION, 0, True)
    enter(svm_exit.VMEXIT_CR0_SEL_WRITE, Cause.CR_ACCESS, 0, True)
    enter(svm_exit.VMEXIT_INTR, Cause.INTERRUPT, 0, True)
    enter(svm_exit.VMEXIT_NMI, Cause.NMI, 0, False)
    enter(svm_exit.VMEXIT_VINTR, Cause.INTERRUPT_WINDOW, 0, False)
    enter(svm_exit.VMEXIT_IRET, Cause.INTERRUPT_WINDOW, 0, True)
    enter(svm_exit.VMEXIT_SHUTDOWN, Cause.TRIPLE_FAULT, 0, False)
    enter(svm_exit.VMEXIT_IOIO, Cause.IO, 0, True)
    enter(svm_exit.VMEXIT_MSR, Cause.RDMSR, 2, True)
    fill_instructions(nrip_save)
    fill_refused()


def fill_instructions(nrip_save: bool) -> None:
    """Instructions that are carried out and stepped over."""
    enter(svm_exit.VMEXIT_VMMCALL, Cause.HYPERCALL, 3, nrip_save)
    enter(svm_exit.VMEXIT_CPUID, Cause.CPUID, 2, nrip_save)
    enter(svm_exit.VMEXIT_HLT, Cause.HLT, 1, nrip_save)
    enter(svm_exit.VMEXIT_WBINVD, Cause.WBINVD, 2, nrip_save)
    enter(svm_exit.VMEXIT_INVD, Cause.WBINVD, 2, nrip_save)
    enter(svm_exit.VMEXIT_XSETBV, Cause.XSETBV, 3, nrip_save)
    enter(svm_exit.VMEXIT_PAUSE, Cause.PAUSE, 2, nrip_save)
    enter(svm_exit.VMEXIT_RDTSC, Cause.RDTSC, 0, nrip_save)
    enter(svm_exit.VMEXIT_RDTSCP, Cause.RDTSC, 0, nrip_save)
    enter(svm_exit.VMEXIT_INVLPG, Cause.INVLPG, 0, nrip_save)


def fill_refused() -> None:
    """Instructions that a guest does not have."""
    enter(svm_exit.VMEXIT_MONITOR, Cause.MONITOR_MWAIT, 0, False)
    enter(svm_exit.VMEXIT_MWAIT, Cause.MONITOR_MWAIT, 0, False)
    enter(svm_exit.VMEXIT_MWAIT_CONDITIONAL, Cause.MONITOR_MWAIT, 0, False)
    enter(svm_exit.VMEXIT_VMRUN, Cause.VMX_SVM_INSTRUCTION, 0, False)
    enter(svm_exit.VMEXIT_VMLOAD, Cause.VMX_SVM_INSTRUCTION, 0, False)
    enter(svm_exit.VMEXIT_VMSAVE, Cause.VMX_SVM_INSTRUCTION, 0, False)
    enter(svm_exit.VMEXIT_STGI, Cause.VMX_SVM_INSTRUCTION, 0, False)
    enter(svm_exit.VMEXIT_CLGI, Cause.VMX_SVM_INSTRUCTION, 0, False)
    enter(svm_exit.VMEXIT_SKINIT, Cause.VMX_SVM_INSTRUCTION, 0, False)
    enter(svm_exit.VMEXIT_INVLPGA, Cause.VMX_SVM_INSTRUCTION, 0, False)
    enter(svm_exit.VMEXIT_RDPRU, Cause.VMX_SVM_INSTRUCTION, 0, False)
    enter(svm_exit.VMEXIT_RDPMC, Cause.RDPMC, 0, False)


def enter(code: u32, cause: Cause, length: u32, more: bool) -> None:
    """One line."""
    entry = table.entries[code]
    entry.cause = cause
    entry.length = length
    entry.more = more
