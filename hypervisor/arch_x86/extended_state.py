"""What a change of vCPU switches and no VMCB or VMCS holds: x87, SSE, AVX and the other XSAVE states, XCR0, DR0-DR3, TSC_AUX.

Eager: done at each change of vCPU, so that no state is ever left to a trap. XCR0 is set before each XSAVE and XRSTOR: a
guest may have changed it without an exit (QEMU does not intercept XSETBV).
"""
from typing import Final

from hypervisor.addresses import Hva
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.defs.cr import XCR0_AVX, XCR0_AVX512, XCR0_BNDCSR, XCR0_BNDREGS, XCR0_PKRU, XCR0_SSE, XCR0_X87
from hypervisor.arch_x86.defs.msr import TSC_AUX
from hypervisor.arch_x86.intrinsics import (fninit, read_dr0, read_dr1, read_dr2, read_dr3, store_u16, store_u32, write_dr0, write_dr1,
                                            write_dr2, write_dr3, wrmsr, xgetbv, xrstor, xsave, xsetbv)
from hypervisor.lang import u64
from hypervisor.model import Vcpu

FCW_OFFSET: Final = 0  # FXSAVE image (APM vol. 2, 11.4.4)
FCW_INIT: Final = 0x37F
MXCSR_OFFSET: Final = 24
MXCSR_INIT: Final = 0x1F80
MPX: Final[u64] = XCR0_BNDREGS | XCR0_BNDCSR
# One page holds them. AMX does not fit, and of what is not known here nobody can tell which values XCR0 takes.
SWITCHED: Final[u64] = XCR0_X87 | XCR0_SSE | XCR0_AVX | MPX | XCR0_AVX512 | XCR0_PKRU


def mask() -> u64:
    """The states that are switched, and all that a guest may enable in XCR0."""
    return features.xcr0_mask & SWITCHED


def allowed(xcr0: u64) -> bool:
    """May a guest set XCR0 to this? What a CPU refuses, must be refused here: the #GP would be ours (SDM vol. 1, 13.3)."""
    if xcr0 & XCR0_X87 == 0 or xcr0 & ~mask() != 0:
        return False
    if xcr0 & XCR0_AVX != 0 and xcr0 & XCR0_SSE == 0:
        return False
    if xcr0 & MPX not in (0, MPX):
        return False
    return xcr0 & XCR0_AVX512 == 0 or xcr0 & (XCR0_AVX512 | XCR0_AVX) == XCR0_AVX512 | XCR0_AVX


def start(vcpu: Vcpu, area: Hva) -> None:
    """State after reset, in a zeroed page."""
    vcpu.fpu_hva = area
    vcpu.xcr0 = XCR0_X87
    store_u16(Hva(area + FCW_OFFSET), FCW_INIT)
    store_u32(Hva(area + MXCSR_OFFSET), MXCSR_INIT)


def save(vcpu: Vcpu) -> None:
    """Out of the CPU."""
    vcpu.xcr0 = xgetbv(0)
    xsetbv(0, mask())
    xsave(vcpu.fpu_hva, mask())
    vcpu.dr[0] = read_dr0()
    vcpu.dr[1] = read_dr1()
    vcpu.dr[2] = read_dr2()
    vcpu.dr[3] = read_dr3()


def load(vcpu: Vcpu) -> None:
    """Into the CPU. FNINIT first: AMD's XRSTOR leaves the last x87 instruction's addresses as they are while no x87 exception is
    pending, and they would be another guest's (APM vol. 2, 11.4.4.3)."""
    fninit()
    xsetbv(0, mask())
    xrstor(vcpu.fpu_hva, mask())
    xsetbv(0, vcpu.xcr0)
    write_dr0(vcpu.dr[0])
    write_dr1(vcpu.dr[1])
    write_dr2(vcpu.dr[2])
    write_dr3(vcpu.dr[3])
    if features.rdtscp:
        wrmsr(TSC_AUX, vcpu.tsc_aux)
