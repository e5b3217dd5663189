"""Model-specific registers of guests that are not passed through (SDM vol. 4, APM vol. 2 appendix A).

FS, GS and KERNEL_GS base, STAR and its kin and SYSENTER never come here: the world switch carries them.
"""
from typing import Final

from hypervisor import clock
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.defs.cr import CR0_PG, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE
from hypervisor.arch_x86.defs import msr as defs
from hypervisor.arch_x86.intrinsics import wrmsr
from hypervisor.arch_x86.state import GuestState
from hypervisor.lang import struct, u32, u64, wrap_u64
from hypervisor.model import Vcpu

EFER_WRITABLE: Final[u64] = EFER_SCE | EFER_LME | EFER_NXE
APIC_BASE_RESET: Final[u64] = 0xFEE00000  # bit 11 clear: no local APIC


@struct
class MsrValue:
    """What a read found."""

    value: u64


def read(vcpu: Vcpu, msr: u32, found: MsrValue) -> bool:
    """False: #GP."""
    match msr:
        case defs.IA32_APIC_BASE:
            found.value = APIC_BASE_RESET
        case defs.IA32_TIME_STAMP_COUNTER:
            found.value = tsc(vcpu)
        case defs.TSC_AUX:
            found.value = vcpu.tsc_aux
            return features.rdtscp
        case defs.EFER | defs.IA32_PAT:
            read_state_msr(vcpu, msr, found)
        case (defs.IA32_PLATFORM_ID | defs.IA32_BIOS_SIGN_ID | defs.IA32_MTRRCAP | defs.IA32_MTRR_DEF_TYPE
              | defs.IA32_MISC_ENABLE | defs.SYSCFG | defs.HWCR | defs.DE_CFG):  # stock kernels look at them
            found.value = 0
        case _:
            return False
    return True


def tsc(vcpu: Vcpu) -> u64:
    """The guest's time-stamp counter."""
    owner = vcpu.vm
    assert owner is not None
    return wrap_u64(clock.now() + owner.tsc_offset)


def read_state_msr(vcpu: Vcpu, msr: u32, found: MsrValue) -> None:
    """Those that the VMCB or VMCS holds."""
    state = GuestState()
    backend.read_state(vcpu, state)
    found.value = state.efer if msr == defs.EFER else state.pat


def write(vcpu: Vcpu, msr: u32, value: u64) -> bool:
    """False: #GP."""
    match msr:
        case defs.TSC_AUX:
            if not features.rdtscp or value >> 32 != 0:
                return False
            vcpu.tsc_aux = value
            wrmsr(defs.TSC_AUX, value)
            return True
        case defs.EFER:
            return write_efer(vcpu, value)
        case defs.IA32_PAT:
            return write_pat(vcpu, value)
        case defs.IA32_BIOS_SIGN_ID | defs.IA32_MISC_ENABLE | defs.SYSCFG | defs.HWCR | defs.DE_CFG:
            return True
        case _:
            return False


def write_efer(vcpu: Vcpu, value: u64) -> bool:
    """LME cannot change while paging is on; LMA is the CPU's."""
    state = GuestState()
    backend.read_state(vcpu, state)
    wanted: u64 = value & ~EFER_LMA
    if wanted & ~EFER_WRITABLE != 0:
        return False
    if state.cr0 & CR0_PG != 0 and (wanted ^ state.efer) & EFER_LME != 0:
        return False
    state.efer = wanted | (state.efer & EFER_LMA)
    backend.write_state(vcpu, state)
    return True


def write_pat(vcpu: Vcpu, value: u64) -> bool:
    """Eight memory types of 0, 1, 4, 5, 6 or 7 each."""
    for i in range(8):
        kind: u64 = (value >> (i * 8 & 63)) & 0xFF
        if kind > 7 or kind in (2, 3):
            return False
    state = GuestState()
    backend.read_state(vcpu, state)
    state.pat = value
    backend.write_state(vcpu, state)
    return True
