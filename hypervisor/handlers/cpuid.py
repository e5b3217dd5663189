"""CPUID: the host's answer less what a guest does not have, and the leaves of hypervisors (abi.py).

Intel SDM vol. 2A CPUID, AMD APM vol. 3 appendix E. A feature is shown only if its state is switched and its registers are
either passed through or handled.
"""
from typing import Final

from hypervisor import clock
from hypervisor.abi import (ABI_VERSION, CPUID_KRAIT_BASE, CPUID_KRAIT_FEATURES, FEATURE_CONSOLE, FEATURE_EVENTS,
                            FEATURE_MEMORY)
from hypervisor.arch_x86 import backend, extended_state
from hypervisor.arch_x86.cpu_features import CpuidResult, features
from hypervisor.arch_x86.defs.cpuid import (
    F1C_CNXT_ID, F1C_DSCPL, F1C_DTES64, F1C_EST, F1C_HYPERVISOR, F1C_MONITOR, F1C_OSXSAVE, F1C_PCID, F1C_PDCM, F1C_SDBG,
    F1C_SMX, F1C_TM2, F1C_TSC_DEADLINE, F1C_VMX, F1C_X2APIC, F1C_XTPR,
    F1D_ACPI, F1D_APIC, F1D_DS, F1D_HTT, F1D_PBE, F1D_PSN, F1D_TM,
    F7B_SHOWN, F7C_SHOWN, FE1C_CMP_LEGACY, FE1C_SHOWN, FE1D_FFXSR)
from hypervisor.arch_x86.defs.cr import CR4_OSXSAVE
from hypervisor.arch_x86.intrinsics import cpuid
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.devices import lapic
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import address, u32, u64
from hypervisor.model import Vcpu

HIGHEST_BASIC: Final = 0xD
HIGHEST_EXTENDED: Final[u32] = 0x80000008
KVM_BASE: Final = 0x40000000
KVM_FEATURES: Final = 0x40000001
KVM_EBX: Final[u32] = 0x4B4D564B  # "KVMKVMKVM"
KVM_ECX: Final[u32] = 0x564B4D56
KVM_EDX: Final[u32] = 0x4D
# Linux Documentation/virt/kvm/x86/cpuid.rst (6.1): CLOCKSOURCE, NOP_IO_DELAY, CLOCKSOURCE2, STEAL_TIME, PV_EOI,
# POLL_CONTROL, CLOCKSOURCE_STABLE; for VMs of several vCPUs PV_UNHALT, PV_TLB_FLUSH, PV_SEND_IPI, PV_SCHED_YIELD too
KVM_FEATURE_BITS: Final[u32] = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 12 | 1 << 24
KVM_SMP_FEATURE_BITS: Final[u32] = 1 << 7 | 1 << 9 | 1 << 11 | 1 << 13
KRAIT_EBX: Final[u32] = 0x6961724B  # "KraitKraitKr"
KRAIT_ECX: Final[u32] = 0x61724B74
KRAIT_EDX: Final[u32] = 0x724B7469

LEAF_1_ECX_HIDDEN: Final[u32] = (F1C_DTES64 | F1C_MONITOR | F1C_DSCPL | F1C_VMX | F1C_SMX | F1C_EST | F1C_TM2 | F1C_PDCM | F1C_PCID
                                 | F1C_CNXT_ID | F1C_SDBG | F1C_XTPR | F1C_OSXSAVE)
LEAF_1_ECX_EMULATED: Final[u32] = F1C_HYPERVISOR | F1C_X2APIC | F1C_TSC_DEADLINE
LEAF_1_EDX_HIDDEN: Final[u32] = (F1D_APIC | F1D_PSN | F1D_DS | F1D_ACPI | F1D_HTT | F1D_TM | F1D_PBE)
XSAVE_FORMS_SHOWN: Final = 7  # leaf 0xD:1 EAX: XSAVEOPT, XSAVEC, XGETBV with ECX 1; no XSAVES
PHYSICAL_BITS_EAX: Final = 0xFFFF
LEVEL_THREAD: Final = 1  # leaf 0xB ECX
LEVEL_CORE: Final = 2


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Answer in RAX, RBX, RCX, RDX."""
    answer = CpuidResult()
    regs = vcpu.regs
    leaf = u32(regs.rax)
    if leaf >= 0x40000000 and leaf < 0x80000000:
        hypervisor_leaf(vcpu, leaf, answer)
    else:
        cpuid(leaf, u32(regs.rcx), address(answer))
        if leaf >= 0x80000000:
            extended_leaf(vcpu, leaf, answer)
        else:
            basic_leaf(vcpu, leaf, u32(regs.rcx), answer)
    regs.rax = answer.eax
    regs.rbx = answer.ebx
    regs.rcx = answer.ecx
    regs.rdx = answer.edx
    return Outcome.SKIP


def basic_leaf(vcpu: Vcpu, leaf: u32, subleaf: u32, r: CpuidResult) -> None:
    """Leaves of both vendors. What is not named here, the guest does not have."""
    match leaf:
        case 0:
            if r.eax > HIGHEST_BASIC:
                r.eax = HIGHEST_BASIC
        case 1:
            features_leaf(vcpu, r)
        case 2 | 4:
            if leaf == 4 and r.eax & 0x1F != 0:  # each core has its caches for itself
                r.eax = r.eax & 0x3FFF | ((1 << (id_bits(vcpu) & 31)) - 1) << 26
        case 6:
            nothing(r)
            r.eax = 4  # ARAT
        case 7:
            if subleaf != 0:
                nothing(r)
            r.eax = 0
            r.ebx = r.ebx & F7B_SHOWN
            r.ecx = r.ecx & F7C_SHOWN
            r.edx = 0
        case 0xB:
            topology_leaf(vcpu, subleaf, r)
        case 0xD:
            xsave_leaf(subleaf, r)
        case _:
            nothing(r)


def features_leaf(vcpu: Vcpu, r: CpuidResult) -> None:
    """Leaf 1: features, and the initial APIC ID in EBX."""
    owner = vcpu.vm
    assert owner is not None
    r.ebx = (r.ebx & 0xFF00) | ((owner.vcpu_count & 0xFF) << 16) | (vcpu.index << 24)
    r.ecx = (r.ecx & ~LEAF_1_ECX_HIDDEN) | LEAF_1_ECX_EMULATED
    if backend.cr4(vcpu) & CR4_OSXSAVE != 0:
        r.ecx = r.ecx | F1C_OSXSAVE
    r.edx = r.edx & ~LEAF_1_EDX_HIDDEN
    if vcpu.lapic.base & lapic.BASE_ENABLE != 0:
        r.edx = r.edx | F1D_APIC
    if owner.vcpu_count > 1:
        r.edx = r.edx | F1D_HTT


def id_bits(vcpu: Vcpu) -> u32:
    """How many low bits of the APIC ID tell the cores of the one package apart."""
    owner = vcpu.vm
    assert owner is not None
    bits: u32 = 0
    while 1 << (bits & 31) < owner.vcpu_count:
        bits = bits + 1
    return bits


def topology_leaf(vcpu: Vcpu, subleaf: u32, r: CpuidResult) -> None:
    """Leaf 0xB: one thread a core, all vCPUs cores of one package."""
    owner = vcpu.vm
    assert owner is not None
    r.eax = 0
    r.ebx = 0
    r.ecx = subleaf & 0xFF
    r.edx = vcpu.lapic.id
    if subleaf == 0:
        r.ebx = 1
        r.ecx = LEVEL_THREAD << 8
    elif subleaf == 1:
        r.eax = id_bits(vcpu)
        r.ebx = owner.vcpu_count
        r.ecx = 1 | LEVEL_CORE << 8


def xsave_leaf(subleaf: u32, r: CpuidResult) -> None:
    """Leaf 0xD: EBX of subleaf 0 goes by the XCR0 in force, which is the guest's now."""
    shown: u64 = extended_state.mask()
    if subleaf == 0:
        r.eax = r.eax & u32(shown)
        r.edx = r.edx & u32(shown >> 32)
    elif subleaf == 1:
        r.eax = r.eax & XSAVE_FORMS_SHOWN
        r.ecx = 0
        r.edx = 0
    elif subleaf > 62 or (shown >> (subleaf & 63)) & 1 == 0:
        nothing(r)


def extended_leaf(vcpu: Vcpu, leaf: u32, r: CpuidResult) -> None:
    """Leaves 8000_0000 and up."""
    owner = vcpu.vm
    assert owner is not None
    match leaf:
        case 0x80000000:
            if r.eax > HIGHEST_EXTENDED:
                r.eax = HIGHEST_EXTENDED
        case 0x80000001:
            r.ecx = r.ecx & FE1C_SHOWN
            if features.amd and owner.vcpu_count > 1:
                r.ecx = r.ecx | FE1C_CMP_LEGACY
            r.edx = r.edx & ~FE1D_FFXSR
        case 0x80000002 | 0x80000003 | 0x80000004 | 0x80000005 | 0x80000006:
            pass
        case 0x80000007:
            nothing_but_edx(r, 1 << 8)  # invariant TSC
        case 0x80000008:
            r.eax = r.eax & PHYSICAL_BITS_EAX
            r.ebx = 0
            r.ecx = id_bits(vcpu) << 12 | (owner.vcpu_count - 1) if features.amd else 0
            r.edx = 0
        case _:
            nothing(r)


def hypervisor_leaf(vcpu: Vcpu, leaf: u32, r: CpuidResult) -> None:
    """Leaves 4000_0000 and up: KVM's for stock systems, ours beside them."""
    if leaf == KVM_BASE:
        r.eax = KVM_FEATURES
        r.ebx = KVM_EBX
        r.ecx = KVM_ECX
        r.edx = KVM_EDX
    elif leaf == KVM_FEATURES:
        owner = vcpu.vm
        assert owner is not None
        r.eax = KVM_FEATURE_BITS | (KVM_SMP_FEATURE_BITS if owner.vcpu_count > 1 else 0)
    elif leaf == CPUID_KRAIT_BASE:
        r.eax = CPUID_KRAIT_FEATURES
        r.ebx = KRAIT_EBX
        r.ecx = KRAIT_ECX
        r.edx = KRAIT_EDX
    elif leaf == CPUID_KRAIT_FEATURES:
        r.eax = ABI_VERSION
        r.ebx = FEATURE_CONSOLE | FEATURE_EVENTS | FEATURE_MEMORY
        r.ecx = u32(clock.tsc_khz())


def nothing(r: CpuidResult) -> None:
    """A leaf that is not there."""
    nothing_but_edx(r, 0)


def nothing_but_edx(r: CpuidResult, shown: u32) -> None:
    """All zero but some bits of EDX."""
    r.eax = 0
    r.ebx = 0
    r.ecx = 0
    r.edx = r.edx & shown
