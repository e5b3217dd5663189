"""What a change of vCPU switches and no VMCB or VMCS holds: x87, SSE, AVX and the other XSAVE states, XCR0, DR0-DR3, TSC_AUX.

Eager: done at each change of vCPU, so that no state is ever left to a trap. XCR0 is set before each XSAVE and XRSTOR: a
guest may have changed it without an exit (QEMU does not intercept XSETBV).
"""
from typing import Final

from hypervisor.addresses import PAGE_SIZE, Hva
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.defs.cr import XCR0_AVX, XCR0_AVX512, XCR0_PKRU, XCR0_SSE, XCR0_X87
from hypervisor.arch_x86.defs.msr import TSC_AUX
from hypervisor.arch_x86.intrinsics import (fxrstor, fxsave, read_dr0, read_dr1, read_dr2, read_dr3, store_u16, store_u32,
                                            write_dr0, write_dr1, write_dr2, write_dr3, wrmsr, xgetbv, xrstor, xsave, xsetbv)
from hypervisor.lang import u64
from hypervisor.model import Vcpu

FCW_OFFSET: Final = 0  # FXSAVE image (APM vol. 2, 11.4.4)
FCW_INIT: Final = 0x37F
MXCSR_OFFSET: Final = 24
MXCSR_INIT: Final = 0x1F80
FITS_A_PAGE: Final[u64] = XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512 | XCR0_PKRU


def mask() -> u64:
    """The states that are switched, and all that a guest may enable in XCR0: one page holds them."""
    if features.xsave_size <= PAGE_SIZE:
        return features.xcr0_mask
    return features.xcr0_mask & FITS_A_PAGE


def allowed(xcr0: u64) -> bool:
    """May a guest set XCR0 to this? (APM vol. 2, 11.5.2)"""
    if xcr0 & XCR0_X87 == 0 or xcr0 & ~mask() != 0:
        return False
    if xcr0 & XCR0_AVX != 0 and xcr0 & XCR0_SSE == 0:
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
    if features.xsave:
        vcpu.xcr0 = xgetbv(0)
        xsetbv(0, mask())
        xsave(vcpu.fpu_hva, mask())
    else:
        fxsave(vcpu.fpu_hva)
    vcpu.dr[0] = read_dr0()
    vcpu.dr[1] = read_dr1()
    vcpu.dr[2] = read_dr2()
    vcpu.dr[3] = read_dr3()


def load(vcpu: Vcpu) -> None:
    """Into the CPU."""
    if features.xsave:
        xsetbv(0, mask())
        xrstor(vcpu.fpu_hva, mask())
        xsetbv(0, vcpu.xcr0)
    else:
        fxrstor(vcpu.fpu_hva)
    write_dr0(vcpu.dr[0])
    write_dr1(vcpu.dr[1])
    write_dr2(vcpu.dr[2])
    write_dr3(vcpu.dr[3])
    if features.rdtscp:
        wrmsr(TSC_AUX, vcpu.tsc_aux)
