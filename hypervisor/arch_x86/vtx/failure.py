"""Why a VM entry failed, in words: the instruction's error number, or the guest-state rule that is broken.

Source: Intel SDM vol. 3C 31.4 (error numbers), 27.3.1 (checks on the guest-state area). For the console only: nothing
decides by these checks.
"""
from typing import Annotated, Final

from hypervisor import mtrr
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.defs.cr import CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE, RFLAGS_IF, RFLAGS_VM
from hypervisor.arch_x86.intrinsics import rdmsr, vmread
from hypervisor.arch_x86.state import CS, DS, FS, GS, LDTR, SS, TR
from hypervisor.arch_x86.vtx import controls, vmcs
from hypervisor.arch_x86.vtx.init import (IA32_VMX_CR0_FIXED0, IA32_VMX_CR0_FIXED1, IA32_VMX_CR4_FIXED0,
                                          IA32_VMX_CR4_FIXED1)
from hypervisor.console import say
from hypervisor.lang import struct, u32, u64

ERRORS: Final = 29
ERROR_NAME: Final[Annotated[list[str], ERRORS]] = [
    "no current VMCS (VMfailInvalid)", "VMCALL in VMX root operation", "VMCLEAR with an invalid address",
    "VMCLEAR with the VMXON pointer", "VMLAUNCH with a VMCS that is not clear", "VMRESUME with a VMCS not launched",
    "VMRESUME after VMXOFF", "invalid control field", "invalid host-state field", "VMPTRLD with an invalid address",
    "VMPTRLD with the VMXON pointer", "VMPTRLD with another VMCS revision", "no such VMCS field",
    "VMWRITE to a read-only field", "error 14", "VMXON in VMX root operation", "invalid executive-VMCS pointer",
    "executive VMCS not launched", "executive-VMCS pointer is not the VMXON pointer", "VMCALL with a VMCS that is not clear",
    "VMCALL with invalid VM-exit controls", "error 21", "VMCALL with another MSEG revision",
    "VMXOFF under dual-monitor treatment", "VMCALL with invalid SMM-monitor features",
    "invalid execution controls in the executive VMCS", "events blocked by MOV SS", "error 27",
    "invalid operand to INVEPT or INVVPID"]

SEGMENT_NAME: Final[Annotated[list[str], 8]] = ["ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"]

REASON_INVALID_GUEST_STATE: Final = 33
REASON_MSR_LOADING: Final = 34

RFLAGS_ALWAYS_0: Final[u64] = 0xFFFFFFFFFFC08028
RFLAGS_ALWAYS_1: Final[u64] = 2

@struct
class Latest:
    """The latest failure, for backend.refused_field."""

    field: str


latest: Final = Latest()

RIGHTS_TYPE: Final = 0xF
RIGHTS_S: Final = 1 << 4
RIGHTS_PRESENT: Final = 1 << 7
RIGHTS_L: Final = 1 << 13
RIGHTS_DB: Final = 1 << 14
RIGHTS_GRANULARITY: Final = 1 << 15
RIGHTS_UNUSABLE: Final = 1 << 16
RIGHTS_RESERVED: Final = 0xFFFE0F00
RIGHTS_DPL: Final = 3 << 5
SELECTOR_TI: Final = 4
EFER_DEFINED: Final[u64] = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE


def explain_instruction(error: u64) -> None:
    """Say why VMLAUNCH or VMRESUME did not enter: a VM-instruction error number, 0 for VMfailInvalid."""
    latest.field = ""
    if error < ERRORS:
        latest.field = ERROR_NAME[error]
        say(f"vtx: VM entry failed, error {error}: {ERROR_NAME[error]}")
    else:
        say(f"vtx: VM entry failed, error {error}")


def explain_guest_state(reason: u32, qualification: u64) -> None:
    """Say which rule was broken while loading the guest (exit reasons 33, 34, 41). The VMCS is current."""
    latest.field = "guest state"
    if reason == REASON_MSR_LOADING:
        say(f"vtx: VM entry failed loading entry {qualification} of the MSR list")
        return
    if reason != REASON_INVALID_GUEST_STATE:
        say("vtx: VM entry failed by a machine check")
        return
    say(f"vtx: VM entry refused the guest state (qualification {qualification:#x})")
    found = check_control_registers() + check_msrs() + check_tables() + check_flags() + check_events()
    for segment in range(8):
        found = found + check_segment(u32(segment))
    if found == 0:
        say("vtx: none of the rules that Krait knows is broken")


def broken(rule: bool, field: str, value: u64, why: str) -> u32:
    """One line if the rule is broken; 1 if so, else 0."""
    if rule:
        return 0
    latest.field = field
    say(f"vtx:   {field} = {value:#x}: {why}")
    return 1


def check_control_registers() -> u32:
    """27.3.1.1; number of rules broken."""
    cr0 = vmread(vmcs.GUEST_CR0)
    cr4 = vmread(vmcs.GUEST_CR4)
    efer = vmread(vmcs.GUEST_EFER)
    must0 = rdmsr(IA32_VMX_CR0_FIXED0) & ~(CR0_PE | CR0_PG)
    long_mode = vmread(vmcs.ENTRY_CONTROLS) & controls.ENTRY_IA32E_GUEST != 0
    paging = cr0 & CR0_PG != 0
    found = broken(must0 & ~cr0 == 0, "CR0", cr0, "a bit that VMX fixes to 1 is 0")
    found = found + broken(cr0 & ~rdmsr(IA32_VMX_CR0_FIXED1) == 0, "CR0", cr0, "a bit that VMX fixes to 0 is 1")
    found = found + broken(not paging or cr0 & CR0_PE != 0, "CR0", cr0, "PG without PE")
    found = found + broken(rdmsr(IA32_VMX_CR4_FIXED0) & ~cr4 == 0, "CR4", cr4, "a bit that VMX fixes to 1 is 0")
    found = found + broken(cr4 & ~rdmsr(IA32_VMX_CR4_FIXED1) == 0, "CR4", cr4, "a bit that VMX fixes to 0 is 1")
    found = found + broken(not long_mode or (paging and cr4 & CR4_PAE != 0), "CR4", cr4, "IA-32e mode without PG and PAE")
    found = found + broken((efer & EFER_LMA != 0) == long_mode, "EFER", efer, "LMA differs from `IA-32e mode guest`")
    found = found + broken(not paging or (efer & EFER_LMA != 0) == (efer & EFER_LME != 0), "EFER", efer,
                           "LMA differs from LME under paging")
    cr3 = vmread(vmcs.GUEST_CR3)
    found = found + broken(cr3 >> (features.physical_bits & 63) == 0, "CR3", cr3, "a bit above the physical width is 1")
    dr7 = vmread(vmcs.GUEST_DR7)
    return found + broken(dr7 >> 32 == 0, "DR7", dr7, "a bit above 31 is 1")


def canonical(linear: u64) -> bool:
    """Whether bits 63:47 are the same."""
    return linear >> 47 in (0, 0x1FFFF)


def check_msrs() -> u32:
    """27.3.1.1: MSRs that an entry loads; number of rules broken."""
    efer = vmread(vmcs.GUEST_EFER)
    pat = vmread(vmcs.GUEST_PAT)
    esp = vmread(vmcs.GUEST_SYSENTER_ESP)
    eip = vmread(vmcs.GUEST_SYSENTER_EIP)
    found = broken(efer & ~EFER_DEFINED == 0, "EFER", efer, "a reserved bit is 1")
    found = found + broken(mtrr.types_are_valid(pat, True), "PAT", pat, "a memory type that does not exist")
    found = found + broken(canonical(esp), "SYSENTER_ESP", esp, "not canonical")
    return found + broken(canonical(eip), "SYSENTER_EIP", eip, "not canonical")


def check_tables() -> u32:
    """27.3.1.3; number of rules broken."""
    found: u32 = 0
    gdtr = vmread(vmcs.GUEST_GDTR_BASE)
    idtr = vmread(vmcs.GUEST_IDTR_BASE)
    found = found + broken(canonical(gdtr), "GDTR base", gdtr, "not canonical")
    found = found + broken(canonical(idtr), "IDTR base", idtr, "not canonical")
    found = found + broken(vmread(vmcs.GUEST_GDTR_LIMIT) >> 16 == 0, "GDTR limit", vmread(vmcs.GUEST_GDTR_LIMIT), "above FFFF")
    return found + broken(vmread(vmcs.GUEST_IDTR_LIMIT) >> 16 == 0, "IDTR limit", vmread(vmcs.GUEST_IDTR_LIMIT), "above FFFF")


def check_flags() -> u32:
    """27.3.1.4; number of rules broken."""
    flags = vmread(vmcs.GUEST_RFLAGS)
    rip = vmread(vmcs.GUEST_RIP)
    long_mode = vmread(vmcs.ENTRY_CONTROLS) & controls.ENTRY_IA32E_GUEST != 0
    code_64: bool = long_mode and vmread(vmcs.GUEST_ES_RIGHTS + CS * vmcs.SEGMENT_STRIDE) & RIGHTS_L != 0
    found = broken(rip >> 32 == 0 or code_64, "RIP", rip, "above 4 GiB out of 64-bit code")
    found = found + broken(canonical(rip), "RIP", rip, "not canonical")
    found = found + broken(flags & RFLAGS_VM == 0 or not long_mode, "RFLAGS", flags, "VM in IA-32e mode")
    found = found + broken(flags & RFLAGS_ALWAYS_0 == 0, "RFLAGS", flags, "a reserved bit is 1")
    found = found + broken(flags & RFLAGS_ALWAYS_1 != 0, "RFLAGS", flags, "bit 1 is 0")
    return found


def check_events() -> u32:
    """27.3.1.5: interruptibility against RFLAGS and the event to inject; number of rules broken."""
    flags = vmread(vmcs.GUEST_RFLAGS)
    blocked = vmread(vmcs.GUEST_INTERRUPTIBILITY)
    info = vmread(vmcs.ENTRY_INTERRUPTION_INFO)
    shadow: u64 = vmcs.BLOCKED_BY_SHADOW
    external: bool = (info & vmcs.INTERRUPTION_VALID != 0
                      and info & vmcs.INTERRUPTION_TYPE == vmcs.TYPE_EXTERNAL)
    found = broken(vmread(vmcs.GUEST_ACTIVITY) <= 3, "activity state", vmread(vmcs.GUEST_ACTIVITY), "above 3")
    found = found + broken(blocked & shadow != shadow, "interruptibility", blocked, "blocked by STI and by MOV SS")
    found = found + broken(blocked & vmcs.BLOCKED_BY_STI == 0 or flags & RFLAGS_IF != 0, "interruptibility", blocked,
                           "blocked by STI while IF is 0")
    found = found + broken(not external or flags & RFLAGS_IF != 0, "RFLAGS", flags, "interrupt injected while IF is 0")
    found = found + broken(not external or blocked & shadow == 0, "interruptibility", blocked,
                           "interrupt injected into a shadow")
    return found


def check_segment(segment: u32) -> u32:
    """27.3.1.2, the rules for an unrestricted guest out of virtual-8086 mode; number of rules broken."""
    offset: u32 = segment * vmcs.SEGMENT_STRIDE
    rights = u32(vmread(vmcs.GUEST_ES_RIGHTS + offset))
    limit = vmread(vmcs.GUEST_ES_LIMIT + offset)
    name = SEGMENT_NAME[segment]
    base = vmread(vmcs.GUEST_ES_BASE + offset)
    found = broken(segment not in (FS, GS, TR) or canonical(base), name, base, "base not canonical")
    if rights & RIGHTS_UNUSABLE != 0:
        return found + broken(segment != TR and segment != CS, name, rights, "unusable")
    kind = rights & RIGHTS_TYPE
    found = found + broken(segment > DS or base >> 32 == 0, name, base, "base above 4 GiB")
    found = found + broken(rights & RIGHTS_PRESENT != 0, name, rights, "not present, not marked unusable")
    found = found + broken(rights & RIGHTS_RESERVED == 0, name, rights, "a reserved access-rights bit is 1")
    found = found + broken((limit & 0xFFF == 0xFFF or rights & RIGHTS_GRANULARITY == 0)
                           and (limit & 0xFFF00000 == 0 or rights & RIGHTS_GRANULARITY != 0), name, limit,
                           "limit and granularity disagree")
    if segment in (LDTR, TR):
        selector = vmread(vmcs.GUEST_ES_SELECTOR + offset)
        found = found + broken(selector & SELECTOR_TI == 0, name, selector, "selector names the LDT")
        found = found + broken(canonical(base), name, base, "base not canonical")
        found = found + broken(rights & RIGHTS_S == 0, name, rights, "not a system segment")
        found = found + broken(kind == 2 or kind == 11 or (kind == 3 and segment == TR), name, rights,
                               "type is neither LDT (2) nor busy TSS (3, 11)")
        return found
    found = found + broken(rights & RIGHTS_S != 0, name, rights, "a system segment")
    if segment == CS:
        found = found + broken(kind in (3, 9, 11, 13, 15), name, rights, "type is not accessed code (or 3, data)")
        found = found + broken(rights & RIGHTS_L == 0 or rights & RIGHTS_DB == 0, name, rights, "both L and D")
        found = found + check_privilege(rights)
    elif segment == SS:
        found = found + broken(kind in (3, 7), name, rights, "type is not accessed writable data")
    else:
        found = found + broken(kind & 1 != 0 and (kind & 8 == 0 or kind & 2 != 0), name, rights,
                               "type is not accessed and readable")
    return found


def check_privilege(code: u32) -> u32:
    """27.3.1.2: DPL of CS against that of SS, which is the CPL; number of rules broken."""
    stack = u32(vmread(vmcs.GUEST_SS_RIGHTS))
    kind = code & RIGHTS_TYPE
    dpl = code & RIGHTS_DPL
    level = stack & RIGHTS_DPL
    if kind == 3:
        return broken(dpl == 0 and level == 0, "CS", code, "data, and a DPL of CS or SS above 0")
    if kind in (9, 11):
        return broken(dpl == level, "CS", code, "DPL differs from that of SS")
    return broken(dpl <= level, "CS", code, "conforming, DPL above that of SS")
