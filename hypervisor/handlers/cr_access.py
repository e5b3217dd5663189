"""MOV to CR4 (SVM, VT-x), CR0 (VT-x) and CR8 (SVM, while an interrupt waits for it): bits that the guest may not have are refused, the others take effect.

The combinations are those of AMD APM vol. 2, 3.1 and Intel SDM vol. 3A, 2.5: what a CPU answers by #GP, is one here.
"""
from typing import Final

from hypervisor import apic_bus, crash, inject
from hypervisor.arch_x86 import backend, registers
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.defs.cr import (
    CR0_CD, CR0_NW, CR0_PE, CR0_PG, CR4_DE, CR4_FSGSBASE, CR4_MCE, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE, CR4_PAE,
    CR4_PCE, CR4_PGE, CR4_PSE, CR4_PVI, CR4_SMAP, CR4_SMEP, CR4_TSD, CR4_UMIP, CR4_VME, EFER_LMA, EFER_LME, GP)
from hypervisor.arch_x86.state import GuestState
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.exit_completion import complete_register_access
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import u32, u64
from hypervisor.model import Vcpu

CR4_ALWAYS: Final[u64] = (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR
                          | CR4_OSXMMEXCPT)
CR0_DEFINED: Final[u64] = 0xE005003F


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Carry out the move, or #GP."""
    if not complete_register_access(vcpu, exit):
        return Outcome.RESUME
    if exit.is_write and exit.number == 8:
        return set_cr8(vcpu, registers.get(vcpu.regs, exit.register))
    if not exit.is_write or exit.number not in (0, 4):
        crash.stop(vcpu, exit, f"access to cr{exit.number} that was not asked for")
        return Outcome.STOP
    state = GuestState()
    backend.read_state(vcpu, state)
    value = registers.get(vcpu.regs, exit.register)
    cr0 = state.cr0
    cr4 = state.cr4
    done: bool = set_cr0(state, value) if exit.number == 0 else set_cr4(state, value)
    if done and loads_pointers(state, cr0, cr4):
        vm = vcpu.vm
        assert vm is not None
        done = backend.load_page_pointers(vcpu, vm, state.cr3)
    if not done:
        inject.exception_with_error(vcpu, GP, 0)
        return Outcome.RESUME
    backend.write_state(vcpu, state)
    return Outcome.SKIP


def loads_pointers(state: GuestState, cr0: u64, cr4: u64) -> bool:
    """Is PAE paging on now, and was one of the bits changed that make a CPU load its pointers (SDM vol. 3A 4.4.1)?"""
    if state.cr0 & CR0_PG == 0 or state.cr4 & CR4_PAE == 0 or state.efer & EFER_LMA != 0:
        return False
    return (state.cr0 ^ cr0) & (CR0_CD | CR0_NW | CR0_PG) != 0 or (state.cr4 ^ cr4) & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP) != 0


def set_cr8(vcpu: Vcpu, value: u64) -> Outcome:
    """The task priority: bits 3-0."""
    if value >> 4 != 0:
        inject.exception_with_error(vcpu, GP, 0)
        return Outcome.RESUME
    apic_bus.set_cr8(vcpu, u32(value))
    return Outcome.SKIP


def cr4_allowed() -> u64:
    """Bits of CR4 that a guest may set: those of features that CPUID shows it."""
    bits = CR4_ALWAYS
    if features.fsgsbase:
        bits |= CR4_FSGSBASE
    if features.xsave:
        bits |= CR4_OSXSAVE
    if features.smep:
        bits |= CR4_SMEP
    if features.smap:
        bits |= CR4_SMAP
    if features.umip:
        bits |= CR4_UMIP
    return bits


def set_cr4(state: GuestState, value: u64) -> bool:
    """False: #GP."""
    if value & ~cr4_allowed() != 0:
        return False
    if state.efer & EFER_LMA != 0 and value & CR4_PAE == 0:
        return False
    state.cr4 = value
    return True


def set_cr0(state: GuestState, value: u64) -> bool:
    """False: #GP. Turning paging on with EFER.LME enters long mode, turning it off leaves it."""
    if value >> 32 != 0:
        return False
    value = value & CR0_DEFINED | state.cr0 & ~CR0_DEFINED
    if value & CR0_PG != 0 and value & CR0_PE == 0:
        return False
    if value & CR0_NW != 0 and value & CR0_CD == 0:
        return False
    if value & CR0_PG != 0 and state.efer & EFER_LME != 0:
        if state.cr4 & CR4_PAE == 0:
            return False
        state.efer |= EFER_LMA
    else:
        state.efer = state.efer & ~EFER_LMA
    state.cr0 = value
    return True
