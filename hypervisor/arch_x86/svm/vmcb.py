"""The virtual machine control block, as an overlay on one 4 KiB page (AMD APM vol. 2 rev. 3.42, appendix B)."""
from typing import Annotated, Final

from hypervisor.lang import struct, u8, u16, u32, u64

VMCB_BYTES: Final = 4096


@struct
class VmcbSegment:
    """A segment register; attributes are descriptor bits 40-47 in bits 0-7 and 52-55 in bits 8-11."""

    selector: u16
    attributes: u16
    limit: u32
    base: u64


@struct
class Vmcb:
    """Control area (table B-1) at 0x000, state save area (table B-2) at 0x400."""

    intercept_cr: u32  # 0x000: reads of CR0-15 in bits 0-15, writes in 16-31
    intercept_dr: u32
    intercept_exceptions: u32
    intercept_misc1: u32
    intercept_misc2: u32  # 0x010
    intercept_misc3: u32
    reserved_018: Annotated[list[u32], 9]
    pause_filter_threshold: u16  # 0x03C
    pause_filter_count: u16
    iopm_base_pa: u64  # 0x040
    msrpm_base_pa: u64
    tsc_offset: u64
    guest_asid: u32  # 0x058
    tlb_control: u32  # bits 0-7
    v_intr: u64  # 0x060: V_TPR, V_IRQ, V_INTR_PRIO, V_IGN_TPR, V_INTR_MASKING, V_INTR_VECTOR
    interrupt_shadow: u64  # 0x068
    exit_code: u64  # 0x070
    exit_info1: u64
    exit_info2: u64
    exit_int_info: u64
    np_enable: u64  # 0x090
    avic_apic_bar: u64
    ghcb_pa: u64
    event_injection: u64  # 0x0A8
    n_cr3: u64
    lbr_virtualization_enable: u64
    clean_bits: u64  # 0x0C0
    next_rip: u64
    fetched_bytes: Annotated[list[u8], 16]  # 0x0D0: count, then the instruction's bytes (decode assists)
    reserved_0e0: Annotated[list[u64], 100]
    es: VmcbSegment  # 0x400
    cs: VmcbSegment
    ss: VmcbSegment
    ds: VmcbSegment
    fs: VmcbSegment  # VMLOAD, VMSAVE
    gs: VmcbSegment  # VMLOAD, VMSAVE
    gdtr: VmcbSegment
    ldtr: VmcbSegment  # VMLOAD, VMSAVE
    idtr: VmcbSegment
    tr: VmcbSegment  # VMLOAD, VMSAVE
    reserved_4a0: Annotated[list[u8], 43]
    cpl: u8  # 0x4CB
    reserved_4cc: u32
    efer: u64  # 0x4D0
    reserved_4d8: Annotated[list[u64], 14]
    cr4: u64  # 0x548
    cr3: u64
    cr0: u64
    dr7: u64
    dr6: u64
    rflags: u64  # 0x570
    rip: u64
    reserved_580: Annotated[list[u64], 11]
    rsp: u64  # 0x5D8
    s_cet: u64
    ssp: u64
    isst_addr: u64
    rax: u64  # 0x5F8
    star: u64  # 0x600; to sysenter_eip: VMLOAD, VMSAVE
    lstar: u64
    cstar: u64
    sfmask: u64
    kernel_gs_base: u64  # 0x620
    sysenter_cs: u64
    sysenter_esp: u64
    sysenter_eip: u64
    cr2: u64  # 0x640
    reserved_648: Annotated[list[u64], 4]
    g_pat: u64  # 0x668
    debug_ctl: u64
    br_from: u64
    br_to: u64
    last_excp_from: u64
    last_excp_to: u64
    reserved_698: Annotated[list[u64], 301]
