"""GuestState from and to the VMCB (AMD APM vol. 2 rev. 3.42, 15.5.1, appendix B table B-2)."""
from typing import Final

from hypervisor.arch_x86.defs.cr import CR0_PG, EFER_LME, EFER_SVME
from hypervisor.arch_x86.defs.svm import INTERCEPT_CR0_SEL_WRITE
from hypervisor.arch_x86.state import CS, DS, ES, FS, GS, LDTR, SS, TR, GuestState, Segment
from hypervisor.arch_x86.svm.vmcb import Vmcb, VmcbSegment
from hypervisor.lang import at, u8, u16, u32
from hypervisor.model import Vcpu

ATTRIBUTE_PRESENT: Final = 1 << 7
ATTRIBUTE_DPL_SHIFT: Final = 5
ATTRIBUTE_UNUSABLE: Final = 1 << 16  # VT-x layout only


def read_state(vcpu: Vcpu, state: GuestState) -> None:
    """Copy all of the VMCB's architectural state out; RSP, RFLAGS and CR2 go to the vCPU's registers."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    vcpu.regs.rsp = vmcb.rsp
    vcpu.regs.rflags = vmcb.rflags
    vcpu.regs.cr2 = vmcb.cr2
    state.cr0 = vmcb.cr0
    state.cr3 = vmcb.cr3
    state.cr4 = vmcb.cr4
    state.efer = vmcb.efer & ~EFER_SVME
    if vmcb.intercept_misc1 & INTERCEPT_CR0_SEL_WRITE != 0:
        state.efer |= EFER_LME
    state.dr6 = vmcb.dr6
    state.dr7 = vmcb.dr7
    state.pat = vmcb.g_pat
    state.gdtr_base = vmcb.gdtr.base
    state.gdtr_limit = vmcb.gdtr.limit
    state.idtr_base = vmcb.idtr.base
    state.idtr_limit = vmcb.idtr.limit
    state.kernel_gs_base = vmcb.kernel_gs_base
    state.star = vmcb.star
    state.lstar = vmcb.lstar
    state.cstar = vmcb.cstar
    state.sfmask = vmcb.sfmask
    state.sysenter_cs = vmcb.sysenter_cs
    state.sysenter_esp = vmcb.sysenter_esp
    state.sysenter_eip = vmcb.sysenter_eip
    get_segment(state.segments[ES], vmcb.es)
    get_segment(state.segments[CS], vmcb.cs)
    get_segment(state.segments[SS], vmcb.ss)
    get_segment(state.segments[DS], vmcb.ds)
    get_segment(state.segments[FS], vmcb.fs)
    get_segment(state.segments[GS], vmcb.gs)
    get_segment(state.segments[LDTR], vmcb.ldtr)
    get_segment(state.segments[TR], vmcb.tr)
    stack = state.segments[SS]  # the VMCB keeps CPL by itself; elsewhere it is SS.DPL
    stack.attributes = u32((stack.attributes & ~(3 << ATTRIBUTE_DPL_SHIFT)) | (vmcb.cpl << ATTRIBUTE_DPL_SHIFT))


def write_state(vcpu: Vcpu, state: GuestState) -> None:
    """Copy all of it in, RSP, RFLAGS and CR2 from the vCPU's registers. VMRUN checks what is not checked here."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    vmcb.rsp = vcpu.regs.rsp
    vmcb.rflags = vcpu.regs.rflags
    vmcb.cr2 = vcpu.regs.cr2
    vmcb.cr0 = state.cr0
    vmcb.cr3 = state.cr3
    vmcb.cr4 = state.cr4
    write_efer(vmcb, state)
    vmcb.dr6 = state.dr6
    vmcb.dr7 = state.dr7
    vmcb.g_pat = state.pat
    vmcb.gdtr.base = state.gdtr_base
    vmcb.gdtr.limit = state.gdtr_limit
    vmcb.idtr.base = state.idtr_base
    vmcb.idtr.limit = state.idtr_limit
    vmcb.kernel_gs_base = state.kernel_gs_base
    vmcb.star = state.star
    vmcb.lstar = state.lstar
    vmcb.cstar = state.cstar
    vmcb.sfmask = state.sfmask
    vmcb.sysenter_cs = state.sysenter_cs
    vmcb.sysenter_esp = state.sysenter_esp
    vmcb.sysenter_eip = state.sysenter_eip
    put_segment(vmcb.es, state.segments[ES])
    put_segment(vmcb.cs, state.segments[CS])
    put_segment(vmcb.ss, state.segments[SS])
    put_segment(vmcb.ds, state.segments[DS])
    put_segment(vmcb.fs, state.segments[FS])
    put_segment(vmcb.gs, state.segments[GS])
    put_segment(vmcb.ldtr, state.segments[LDTR])
    put_segment(vmcb.tr, state.segments[TR])
    vmcb.cpl = u8((state.segments[SS].attributes >> ATTRIBUTE_DPL_SHIFT) & 3)


def write_efer(vmcb: Vmcb, state: GuestState) -> None:
    """EFER as VMRUN wants it: with SVME, and without LME while paging is off; the write of CR0 that turns paging on then exits.

    QEMU 7.2 leaves the host's paging off after an exit of a guest with LME, without PG and PAE, and from then on runs guests
    without nested paging, in the host's memory.
    """
    vmcb.efer = state.efer | EFER_SVME
    vmcb.intercept_misc1 = u32(vmcb.intercept_misc1 & ~INTERCEPT_CR0_SEL_WRITE)
    if state.efer & EFER_LME != 0 and state.cr0 & CR0_PG == 0:
        vmcb.efer = vmcb.efer & ~EFER_LME
        vmcb.intercept_misc1 = u32(vmcb.intercept_misc1 | INTERCEPT_CR0_SEL_WRITE)


def get_segment(to: Segment, source: VmcbSegment) -> None:
    """VMCB layout to VT-x layout; a segment that is not present counts as unusable."""
    packed = source.attributes
    attributes: u32 = (packed & 0xFF) | ((packed & 0xF00) << 4)
    if packed & ATTRIBUTE_PRESENT == 0:
        attributes |= ATTRIBUTE_UNUSABLE
    to.selector = source.selector
    to.attributes = attributes
    to.limit = source.limit
    to.base = source.base


def put_segment(to: VmcbSegment, source: Segment) -> None:
    """VT-x layout to VMCB layout."""
    attributes: u32 = (source.attributes & 0xFF) | ((source.attributes >> 4) & 0xF00)
    if source.attributes & ATTRIBUTE_UNUSABLE != 0:
        attributes = 0
    to.selector = source.selector
    to.attributes = u16(attributes)
    to.limit = source.limit
    to.base = source.base
