"""Is there SVM, with what this hypervisor needs, and switching it on (AMD APM vol. 2 rev. 3.42, 15.4)."""
from typing import Annotated, Final

from hypervisor import phase
from hypervisor.addresses import Hpa, PAGE_SIZE, hpa_of, hva_of
from hypervisor.arch_x86.defs.cpuid import FE1C_SVM, SVM_LEAF
from hypervisor.arch_x86.defs.cr import EFER_NXE, EFER_SVME
from hypervisor.arch_x86.defs.msr import EFER, VM_CR, VM_HSAVE_PA
from hypervisor.arch_x86.defs.svm import (FEATURE_DECODE_ASSISTS, FEATURE_FLUSH_BY_ASID, FEATURE_NESTED_PAGING,
                                          FEATURE_NRIP_SAVE, IOPM_PAGES, MSRPM_PAGES, VM_CR_SVMDIS)
from hypervisor.arch_x86.intrinsics import cpuid, fill_memory, rdmsr, vmsave, wrmsr
from hypervisor.arch_x86.svm import exit_table, nested_format
from hypervisor.arch_x86.svm.controls import allow_msrs
from hypervisor.console import say
from hypervisor.lang import address, array, struct, u32
from hypervisor.memory import frames
from hypervisor.model import Cpu
from hypervisor.status import Status


@struct
class SvmHost:
    """What the CPUs have and what all VMs share; written once at boot."""

    asid_count: u32
    nrip_save: bool
    decode_assists: bool
    flush_by_asid: bool
    iopm_hpa: Hpa  # I/O permission map: all ports exit
    msrpm_hpa: Hpa  # MSR permission map


host: Final = SvmHost()


def detect() -> Status:
    """NOT_FOUND: not a CPU with SVM. UNSUPPORTED: SVM without something needed, which is said by name."""
    regs: Annotated[list[u32], 4] = array(u32, 4)
    cpuid(0x80000000, 0, address(regs))
    if regs[0] < SVM_LEAF:
        return Status.NOT_FOUND
    cpuid(0x80000001, 0, address(regs))
    if regs[2] & FE1C_SVM == 0:
        return Status.NOT_FOUND
    if rdmsr(VM_CR) & VM_CR_SVMDIS != 0:
        say("svm: switched off by the firmware (VM_CR.SVMDIS)")
        return Status.UNSUPPORTED
    cpuid(SVM_LEAF, 0, address(regs))
    if regs[3] & FEATURE_NESTED_PAGING == 0:
        say("svm: nested paging is missing (CPUID 8000_000A EDX bit 0)")
        return Status.UNSUPPORTED
    if regs[1] < 2:
        say("svm: no ASID for guests (CPUID 8000_000A EBX)")
        return Status.UNSUPPORTED
    host.asid_count = regs[1]
    host.nrip_save = regs[3] & FEATURE_NRIP_SAVE != 0
    host.decode_assists = regs[3] & FEATURE_DECODE_ASSISTS != 0
    host.flush_by_asid = regs[3] & FEATURE_FLUSH_BY_ASID != 0
    phase.found("virtual", f"SVM revision {regs[0] & 0xFF}, nested paging, {host.asid_count} ASIDs, features {regs[3]:#x}")
    return Status.OK


def init_cpu(cpu: Cpu) -> Status:
    """Switch SVM on at this CPU; the first call also makes what all VMs share. NO_MEMORY is possible."""
    if host.iopm_hpa == 0:
        status = make_permission_maps()
        if status != Status.OK:
            return status
    saved = frames.alloc_contiguous(2)
    if saved == 0:
        return Status.NO_MEMORY
    nested_format.fill()
    exit_table.fill(host.nrip_save)
    wrmsr(EFER, rdmsr(EFER) | EFER_SVME | EFER_NXE)
    wrmsr(VM_HSAVE_PA, saved)
    cpu.vendor_hva = hva_of(Hpa(saved + PAGE_SIZE))
    vmsave(hpa_of(cpu.vendor_hva))
    cpu.asid_generation = 1
    cpu.next_asid = 1
    return Status.OK


def make_permission_maps() -> Status:
    """Every port and every MSR exits, but for the MSRs that VMLOAD and VMSAVE switch."""
    host.msrpm_hpa = frames.alloc_contiguous(MSRPM_PAGES)
    iopm = frames.alloc_contiguous(IOPM_PAGES)
    if host.msrpm_hpa == 0 or iopm == 0:
        return Status.NO_MEMORY
    host.iopm_hpa = iopm
    fill_memory(hva_of(iopm), 0xFF, IOPM_PAGES * PAGE_SIZE)
    fill_memory(hva_of(host.msrpm_hpa), 0xFF, MSRPM_PAGES * PAGE_SIZE)
    allow_msrs(hva_of(host.msrpm_hpa))
    return Status.OK
