"""Model-specific registers of guests (SDM vol. 4, APM vol. 2 appendix A). What is not named here raises #GP(0), as on a CPU
without it. docs/cpu-policy.md lists them all, with the reasons; tests/test_cpu_policy.py holds both together.
"""
from typing import Final

from hypervisor import apic_bus, clock, log, mtrr
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.defs.cr import CR0_PG, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE
from hypervisor.arch_x86.defs import msr as defs
from hypervisor.arch_x86.intrinsics import wrmsr
from hypervisor.arch_x86.state import GuestState
from hypervisor.build_options import DEBUG
from hypervisor.devices import lapic_registers
from hypervisor.devices.lapic_registers import RegisterValue
from hypervisor.lang import struct, u32, u64, wrap_u64
from hypervisor.model import Vcpu

EFER_WRITABLE: Final[u64] = EFER_SCE | EFER_LME | EFER_NXE
FEATURE_CONTROL_LOCKED: Final[u64] = 1
MICROCODE_AMD: Final[u64] = 0x01000065
MICROCODE_INTEL: Final[u64] = 1 << 32
MISC_ENABLE: Final[u64] = 0x1801  # fast strings; BTS and PEBS unavailable
HWCR_TSC_FREQ_SEL: Final[u64] = 1 << 24  # the TSC counts at the P0 frequency
DE_CFG_LFENCE_SERIALIZE: Final[u64] = 1 << 1

REFUSALS_SAID: Final = 32

# Places in Vcpu.kept.misc_msr
SYSCFG_SLOT: Final = 0
HWCR_SLOT: Final = 1
DE_CFG_SLOT: Final = 2
WALL_CLOCK_SLOT: Final = 3
SYSTEM_TIME_SLOT: Final = 4
NB_CFG_SLOT: Final = 5


@struct
class MsrValue:
    """What a read found."""

    value: u64


def read(vcpu: Vcpu, msr: u32, found: MsrValue) -> bool:
    """False: #GP."""
    match msr:
        case defs.IA32_APIC_BASE:
            found.value = vcpu.lapic.base
        case defs.IA32_TSC_DEADLINE:
            found.value = vcpu.lapic.tsc_deadline
        case defs.IA32_TIME_STAMP_COUNTER:
            found.value = tsc(vcpu)
        case defs.TSC_AUX:
            found.value = vcpu.tsc_aux
            return features.rdtscp
        case defs.EFER | defs.IA32_PAT:
            read_state_msr(vcpu, msr, found)
        case defs.IA32_PLATFORM_ID | defs.IA32_DEBUGCTL | defs.IA32_MCG_CAP | defs.IA32_MCG_STATUS:
            found.value = 0
        case defs.IA32_FEATURE_CONTROL:
            found.value = FEATURE_CONTROL_LOCKED
        case defs.IA32_BIOS_SIGN_ID:
            found.value = MICROCODE_AMD if features.amd else MICROCODE_INTEL
        case defs.IA32_MTRRCAP:
            found.value = mtrr.CAPABILITIES
        case defs.IA32_MISC_ENABLE:
            found.value = MISC_ENABLE
        case defs.KVM_WALL_CLOCK | defs.KVM_WALL_CLOCK_NEW:
            found.value = vcpu.kept.misc_msr[WALL_CLOCK_SLOT]
        case defs.KVM_SYSTEM_TIME | defs.KVM_SYSTEM_TIME_NEW:
            found.value = vcpu.kept.misc_msr[SYSTEM_TIME_SLOT]
        case defs.KVM_PV_EOI:
            found.value = vcpu.kept.pv_eoi_msr
        case defs.KVM_STEAL_TIME:
            found.value = vcpu.kept.steal_msr
        case defs.KVM_POLL_CONTROL:
            found.value = vcpu.kept.poll_control ^ 1
        case defs.SYSCFG | defs.HWCR | defs.NB_CFG | defs.DE_CFG:
            found.value = read_amd(vcpu, msr)
            return features.amd
        case _:
            if lapic_registers.X2APIC_FIRST <= msr <= lapic_registers.X2APIC_LAST:
                return read_x2apic(vcpu, msr, found)
            return read_mtrr(vcpu, msr, found)
    return True


def read_x2apic(vcpu: Vcpu, msr: u32, found: MsrValue) -> bool:
    """Registers of the local APIC."""
    register = RegisterValue()
    done = apic_bus.read_msr(vcpu, msr, register)
    found.value = register.value
    return done


def read_mtrr(vcpu: Vcpu, msr: u32, found: MsrValue) -> bool:
    """False: it is none."""
    slot = mtrr.slot_of(msr)
    if slot == mtrr.NONE:
        return False
    found.value = vcpu.kept.mtrr[slot]
    return True


def read_amd(vcpu: Vcpu, msr: u32) -> u64:
    """Registers of AMD's CPUs."""
    if msr == defs.SYSCFG:
        return vcpu.kept.misc_msr[SYSCFG_SLOT]
    if msr == defs.NB_CFG:
        return vcpu.kept.misc_msr[NB_CFG_SLOT]
    if msr == defs.HWCR:
        return vcpu.kept.misc_msr[HWCR_SLOT] | HWCR_TSC_FREQ_SEL
    return vcpu.kept.misc_msr[DE_CFG_SLOT] | DE_CFG_LFENCE_SERIALIZE


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
        case defs.IA32_BIOS_SIGN_ID | defs.IA32_MISC_ENABLE:
            return True
        case defs.IA32_APIC_BASE:
            return apic_bus.write_base(vcpu, value)
        case defs.IA32_TSC_DEADLINE:
            apic_bus.set_tsc_deadline(vcpu, value)
            return True
        case defs.IA32_DEBUGCTL | defs.IA32_MCG_STATUS:
            return value == 0
        case defs.KVM_POLL_CONTROL:
            vcpu.kept.poll_control = value & 1 ^ 1
            return value <= 1
        case defs.SYSCFG:
            vcpu.kept.misc_msr[SYSCFG_SLOT] = value
            return features.amd
        case defs.HWCR:
            vcpu.kept.misc_msr[HWCR_SLOT] = value
            return features.amd
        case defs.NB_CFG:
            vcpu.kept.misc_msr[NB_CFG_SLOT] = value
            return features.amd
        case defs.DE_CFG:
            vcpu.kept.misc_msr[DE_CFG_SLOT] = value
            return features.amd
        case _:
            return write_mtrr(vcpu, msr, value)


def write_mtrr(vcpu: Vcpu, msr: u32, value: u64) -> bool:
    """False: it is none, or does not take this value."""
    slot = mtrr.slot_of(msr)
    if slot == mtrr.NONE or not mtrr.is_valid(slot, value):
        return False
    vcpu.kept.mtrr[slot] = value
    return True


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
    if not mtrr.types_are_valid(value, True):
        return False
    state = GuestState()
    backend.read_state(vcpu, state)
    state.pat = value
    backend.write_state(vcpu, state)
    return True


def count_refused(vcpu: Vcpu, what: str) -> None:
    """An access is answered by #GP; debug images name the first ones of each VM."""
    owner = vcpu.vm
    assert owner is not None
    owner.refused_msrs += 1
    if DEBUG and owner.refused_msrs <= REFUSALS_SAID:
        log.warning(f"vm {owner.id}: {what} {u32(vcpu.regs.rcx):#x} refused at {vcpu.regs.rip:#x}")
