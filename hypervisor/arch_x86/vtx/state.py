"""Architectural state between the VMCS and GuestState: what the guest sees, not what VMX needs besides.

CR0.NE and CR4.VMXE are set for real and shown as the guest wrote them (read shadows, 25.6.6). Not for hot paths.
"""
from typing import Annotated, Final

from hypervisor.addresses import Gpa
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.defs.cr import CR0_CD, CR0_ET, CR0_NE, CR0_NW, CR0_PG, CR4_VMXE, EFER_LMA, EFER_LME
from hypervisor.arch_x86.intrinsics import vmread, vmwrite
from hypervisor.arch_x86.state import TR, GuestState, Segment
from hypervisor.arch_x86.vtx import vmcs
from hypervisor.arch_x86.vtx.controls import ENTRY_IA32E_GUEST
from hypervisor.arch_x86.vtx.current import use
from hypervisor.arch_x86.vtx.vcpu import CR0_HOST_BITS, cr4, load_msrs, save_msrs
from hypervisor.cpu import this_cpu
from hypervisor.lang import array, u16, u32, u64
from hypervisor.memory import guest_memory
from hypervisor.model import Vcpu, Vm

PAE_TABLE: Final[u64] = 0xFFFFFFE0  # where CR3 points under PAE paging
PDPTE_PRESENT: Final = 1
PDPTE_RESERVED: Final[u64] = 0x1E6
ALL_ONES: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF
RIGHTS_PRESENT: Final = 1 << 7
RIGHTS_UNUSABLE: Final = 1 << 16
RIGHTS_BUSY_TSS: Final = 0x8B  # present, 64-bit or 32-bit busy TSS


def read_segment(index: u32, segment: Segment) -> None:
    """One guest segment of the current VMCS."""
    offset: u32 = index * vmcs.SEGMENT_STRIDE
    segment.selector = u16(vmread(vmcs.GUEST_ES_SELECTOR + offset))
    segment.attributes = u32(vmread(vmcs.GUEST_ES_RIGHTS + offset))
    segment.limit = u32(vmread(vmcs.GUEST_ES_LIMIT + offset))
    segment.base = vmread(vmcs.GUEST_ES_BASE + offset)


def write_segment(index: u32, segment: Segment) -> None:
    """The reverse. A segment that is not present is unusable; TR always is a busy TSS, as a VM entry demands."""
    offset: u32 = index * vmcs.SEGMENT_STRIDE
    rights: u32 = segment.attributes
    if rights & RIGHTS_PRESENT == 0:
        rights = RIGHTS_BUSY_TSS if index == TR else RIGHTS_UNUSABLE
    vmwrite(vmcs.GUEST_ES_SELECTOR + offset, segment.selector)
    vmwrite(vmcs.GUEST_ES_RIGHTS + offset, rights)
    vmwrite(vmcs.GUEST_ES_LIMIT + offset, segment.limit)
    vmwrite(vmcs.GUEST_ES_BASE + offset, segment.base)


def read_state(vcpu: Vcpu, state: GuestState) -> None:
    """Copy all of the guest's state out; RSP, RFLAGS and CR2 to the vCPU's registers."""
    use(vcpu)
    vcpu.regs.rsp = vmread(vmcs.GUEST_RSP)
    vcpu.regs.rflags = vmread(vmcs.GUEST_RFLAGS)
    state.cr0 = ((vmread(vmcs.GUEST_CR0) & ~CR0_HOST_BITS) | (vmread(vmcs.CR0_SHADOW) & CR0_HOST_BITS))
    state.cr3 = vmread(vmcs.GUEST_CR3)
    state.cr4 = cr4(vcpu)
    state.efer = vmread(vmcs.GUEST_EFER)
    state.pat = vmread(vmcs.GUEST_PAT)
    state.dr7 = vmread(vmcs.GUEST_DR7)
    for i in range(8):
        read_segment(u32(i), state.segments[i])
    state.gdtr_base = vmread(vmcs.GUEST_GDTR_BASE)
    state.gdtr_limit = u32(vmread(vmcs.GUEST_GDTR_LIMIT))
    state.idtr_base = vmread(vmcs.GUEST_IDTR_BASE)
    state.idtr_limit = u32(vmread(vmcs.GUEST_IDTR_LIMIT))
    state.sysenter_cs = vmread(vmcs.GUEST_SYSENTER_CS)
    state.sysenter_esp = vmread(vmcs.GUEST_SYSENTER_ESP)
    state.sysenter_eip = vmread(vmcs.GUEST_SYSENTER_EIP)
    if this_cpu().msr_owner == vcpu:
        save_msrs(vcpu)
    state.dr6 = vcpu.dr6
    state.kernel_gs_base = vcpu.kernel_gs_base
    state.star = vcpu.star
    state.lstar = vcpu.lstar
    state.cstar = vcpu.cstar
    state.sfmask = vcpu.sfmask


def write_state(vcpu: Vcpu, state: GuestState) -> None:
    """Copy all of it in, RSP, RFLAGS and CR2 from the vCPU's registers. EFER.LMA follows from LME and CR0.PG; values must be architecturally valid, else the entry fails."""
    use(vcpu)
    vmwrite(vmcs.GUEST_RSP, vcpu.regs.rsp)
    vmwrite(vmcs.GUEST_RFLAGS, vcpu.regs.rflags)
    vmwrite(vmcs.GUEST_CR0, (state.cr0 | CR0_NE | CR0_ET) & ~(CR0_CD | CR0_NW))
    vmwrite(vmcs.CR0_SHADOW, state.cr0 | CR0_ET)
    vmwrite(vmcs.GUEST_CR3, state.cr3)
    vmwrite(vmcs.GUEST_CR4, state.cr4 | CR4_VMXE)
    vmwrite(vmcs.CR4_SHADOW, state.cr4)
    write_efer(state.efer, state.cr0 & CR0_PG != 0)
    vmwrite(vmcs.GUEST_PAT, state.pat)
    vmwrite(vmcs.GUEST_DR7, state.dr7)
    for i in range(8):
        write_segment(u32(i), state.segments[i])
    vmwrite(vmcs.GUEST_GDTR_BASE, state.gdtr_base)
    vmwrite(vmcs.GUEST_GDTR_LIMIT, state.gdtr_limit)
    vmwrite(vmcs.GUEST_IDTR_BASE, state.idtr_base)
    vmwrite(vmcs.GUEST_IDTR_LIMIT, state.idtr_limit)
    vmwrite(vmcs.GUEST_SYSENTER_CS, state.sysenter_cs)
    vmwrite(vmcs.GUEST_SYSENTER_ESP, state.sysenter_esp)
    vmwrite(vmcs.GUEST_SYSENTER_EIP, state.sysenter_eip)
    vcpu.dr6 = state.dr6
    vcpu.kernel_gs_base = state.kernel_gs_base
    vcpu.star = state.star
    vcpu.lstar = state.lstar
    vcpu.cstar = state.cstar
    vcpu.sfmask = state.sfmask
    if this_cpu().msr_owner == vcpu:
        load_msrs(vcpu)


def write_efer(efer: u64, paging: bool) -> None:
    """EFER and the entry control that must agree with it (27.3.1.1)."""
    value = efer & ~EFER_LMA
    entry = vmread(vmcs.ENTRY_CONTROLS) & ~ENTRY_IA32E_GUEST
    if paging and value & EFER_LME != 0:
        value = value | EFER_LMA
        entry = entry | ENTRY_IA32E_GUEST
    vmwrite(vmcs.GUEST_EFER, value)
    vmwrite(vmcs.ENTRY_CONTROLS, entry)


def load_pdptes(vcpu: Vcpu, vm: Vm, cr3: u64) -> bool:
    """Under PAE paging a CPU holds the four page-directory-pointer entries; an entry takes them from the VMCS (27.3.2.4).

    Loads them from memory, each read once. False, and nothing is loaded: a reserved bit is set in one that is present (4.4.1).
    """
    use(vcpu)
    pointers: Annotated[list[u64], 4] = array(u64, 4)
    reserved: u64 = PDPTE_RESERVED | ~((1 << (features.physical_bits & 63)) - 1) & ALL_ONES
    for i in range(4):
        pointers[i] = guest_memory.read_u64(vm, Gpa((cr3 & PAE_TABLE) + i * 8))
        if pointers[i] & PDPTE_PRESENT != 0 and pointers[i] & reserved != 0:
            return False
    for i in range(4):
        vmwrite(vmcs.GUEST_PDPTE0 + i * 2, pointers[i])
    return True
