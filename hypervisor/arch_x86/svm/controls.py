"""What a guest's VMCB intercepts, and the permission maps (AMD APM vol. 2 rev. 3.42, 15.9-15.11)."""
from typing import Annotated, Final

from hypervisor.addresses import Hva
from hypervisor.arch_x86.defs.cr import AC, DB, MC
from hypervisor.arch_x86.defs.msr import (CSTAR, FS_BASE, GS_BASE, IA32_SYSENTER_CS, IA32_SYSENTER_EIP,
                                          IA32_SYSENTER_ESP, KERNEL_GS_BASE, LSTAR, SFMASK, STAR)
from hypervisor.arch_x86.defs.svm import (
    INTERCEPT_CLGI, INTERCEPT_CPUID, INTERCEPT_CR4_WRITE, INTERCEPT_FERR_FREEZE, INTERCEPT_HLT, INTERCEPT_INIT,
    INTERCEPT_INTR, INTERCEPT_INVD, INTERCEPT_INVLPGA, INTERCEPT_IOIO_PROT, INTERCEPT_MONITOR, INTERCEPT_MSR_PROT,
    INTERCEPT_MWAIT, INTERCEPT_NMI, INTERCEPT_RDPMC, INTERCEPT_RDPRU, INTERCEPT_SHUTDOWN, INTERCEPT_SKINIT,
    INTERCEPT_STGI, INTERCEPT_VMLOAD, INTERCEPT_VMMCALL, INTERCEPT_VMRUN, INTERCEPT_VMSAVE, INTERCEPT_WBINVD,
    INTERCEPT_XSETBV)
from hypervisor.arch_x86.intrinsics import load_u8, store_u8
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.lang import u8, u32, u64

# #DB and #AC: delivery of either can loop inside the CPU for ever, with no interrupt taken; #MC is the host's.
EXCEPTIONS: Final = (1 << DB) | (1 << AC) | (1 << MC)

MISC1: Final[u64] = (INTERCEPT_INTR | INTERCEPT_NMI | INTERCEPT_INIT | INTERCEPT_RDPMC | INTERCEPT_CPUID | INTERCEPT_INVD
                     | INTERCEPT_HLT | INTERCEPT_INVLPGA | INTERCEPT_IOIO_PROT | INTERCEPT_MSR_PROT
                     | INTERCEPT_FERR_FREEZE | INTERCEPT_SHUTDOWN)

MISC2: Final[u64] = (INTERCEPT_VMRUN | INTERCEPT_VMMCALL | INTERCEPT_VMLOAD | INTERCEPT_VMSAVE | INTERCEPT_STGI
                     | INTERCEPT_CLGI | INTERCEPT_SKINIT | INTERCEPT_WBINVD | INTERCEPT_MONITOR | INTERCEPT_MWAIT
                     | INTERCEPT_XSETBV | INTERCEPT_RDPRU)

# CR4: XSETBV may not be intercepted in truth (QEMU), so CR4.OSXSAVE must be under control.
CR_WRITES: Final = INTERCEPT_CR4_WRITE

# VMLOAD and VMSAVE switch these, and none of them reaches beyond the guest.
PASSED_MSRS: Final[Annotated[list[u32], 10]] = [
    IA32_SYSENTER_CS, IA32_SYSENTER_ESP, IA32_SYSENTER_EIP, STAR, LSTAR, CSTAR, SFMASK, FS_BASE, GS_BASE,
    KERNEL_GS_BASE]

MSRPM_C000_OFFSET: Final = 0x800  # MSRs C000_0000 to C000_1FFF (15.11)


def set_intercepts(vmcb: Vmcb) -> None:
    """The intercepts every guest has."""
    vmcb.intercept_cr = CR_WRITES
    vmcb.intercept_exceptions = EXCEPTIONS
    vmcb.intercept_misc1 = MISC1
    vmcb.intercept_misc2 = MISC2


def allow_msrs(msrpm: Hva) -> None:
    """Clear the read and write bits of PASSED_MSRS in a permission map of all ones."""
    for msr in PASSED_MSRS:
        base: u64 = MSRPM_C000_OFFSET if msr >= 0xC0000000 else 0
        index: u64 = msr & 0x1FFF
        place = Hva(msrpm + base + index // 4)
        shift: u32 = (index % 4) * 2
        store_u8(place, u8(load_u8(place) & ~(u64(3) << (shift & 7))))
