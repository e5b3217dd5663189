"""Architectural state of a vCPU, and who saves what.

| register | on #VMEXIT saved by | restored by |
|---|---|---|
| RAX, RIP | SVM: VMCB (copied to Registers); VT-x: enter.S, VMCS (copied) | the same |
| RSP, RFLAGS | VMCB / VMCS (in Registers from backend.read_state to write_state only) | the same |
| other GPRs | svm/enter.S, vtx/enter.S into Registers | the same |
| CR0, CR3, CR4, EFER, segments, GDTR, IDTR, DR7, DEBUGCTL | VMCB / VMCS | the same |
| CR2 | SVM: VMCB; VT-x: vCPU switch | the same |
| DR6 | SVM: VMCB; VT-x: vCPU switch | the same |
| DR0-DR3 | vCPU switch | vCPU switch |
| FS, GS base, KERNEL_GS_BASE, STAR, LSTAR, CSTAR, SFMASK, SYSENTER | SVM: VMLOAD/VMSAVE; VT-x: VMCS (bases, SYSENTER), vCPU switch (others) | the same |
| PAT | SVM: VMCB (nested paging); VT-x: VMCS | the same |
| XCR0; x87, SSE, AVX, AVX-512, PKRU: all that XCR0 can enable | vCPU switch (eager; XCR0 is set first) | vCPU switch |
| TSC_AUX | each WRMSR exits | vCPU switch |
| XSS, SPEC_CTRL | a guest has none: CPUID hides them, their MSRs raise #GP | |
"""
from typing import Annotated, Final

from hypervisor.lang import struct, u16, u32, u64


@struct
class Registers:
    """General registers of a vCPU between exit and entry. enter.S knows the offsets (8 bytes each, this order)."""

    rax: u64
    rcx: u64
    rdx: u64
    rbx: u64
    rsp: u64
    rbp: u64
    rsi: u64
    rdi: u64
    r8: u64
    r9: u64
    r10: u64
    r11: u64
    r12: u64
    r13: u64
    r14: u64
    r15: u64
    rip: u64
    rflags: u64
    cr2: u64


@struct
class Segment:
    """One segment register; attributes in the VT-x layout (SDM vol. 3C 25.4.1): type, S, DPL, P, AVL, L, D/B, G, bit 16 unusable."""

    selector: u16
    attributes: u32
    limit: u32
    base: u64


ES: Final = 0
CS: Final = 1
SS: Final = 2
DS: Final = 3
FS: Final = 4
GS: Final = 5
LDTR: Final = 6
TR: Final = 7


@struct
class GuestState:
    """Everything that VMCB or VMCS hold of a vCPU's architectural state, vendor-free. Not for hot paths."""

    cr0: u64
    cr3: u64
    cr4: u64
    efer: u64
    dr6: u64
    dr7: u64
    pat: u64
    segments: Annotated[list[Segment], 8]
    gdtr_base: u64
    gdtr_limit: u32
    idtr_limit: u32
    idtr_base: u64
    kernel_gs_base: u64
    star: u64
    lstar: u64
    cstar: u64
    sfmask: u64
    sysenter_cs: u64
    sysenter_esp: u64
    sysenter_eip: u64
