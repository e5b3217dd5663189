"""VM-execution, exit and entry controls: what Krait wants of them, what this CPU forces and allows.

One helper, `choose`, derives each control word from its capability MSR and refuses by name what would be lost
without a word. Source: Intel SDM vol. 3C 25.6-25.8 and vol. 3D appendix A.
"""
from typing import Annotated, Final

from hypervisor.arch_x86.intrinsics import rdmsr
from hypervisor.console import say
from hypervisor.lang import struct, u16, u32, u64
from hypervisor.status import Status

# The five control words, in the order of the tables below.
PIN: Final = 0
PROCESSOR: Final = 1
SECONDARY: Final = 2
EXIT: Final = 3
ENTRY: Final = 4
GROUPS: Final = 5

IA32_VMX_BASIC: Final = 0x480
BASIC_TRUE_CONTROLS: Final[u64] = 1 << 55  # A.1: the IA32_VMX_TRUE_* MSRs exist

GROUP_NAME: Final[Annotated[list[str], GROUPS]] = ["pin", "processor", "secondary", "exit", "entry"]
CAPABILITY_MSR: Final[Annotated[list[u16], GROUPS]] = [0x481, 0x482, 0x48B, 0x483, 0x484]
TRUE_CAPABILITY_MSR: Final[Annotated[list[u16], GROUPS]] = [0x48D, 0x48E, 0x48B, 0x48F, 0x490]

# A.2: reserved bits that are always 1 and mean nothing to us (bits that the TRUE MSRs let go are not among them).
RESERVED_ONES: Final[Annotated[list[u32], GROUPS]] = [0x00000016, 0x04006172, 0, 0x00036DFB, 0x000011FB]

# 25.6.1
PIN_EXTERNAL_INTERRUPT: Final = 1 << 0
PIN_NMI: Final = 1 << 3
PIN_VIRTUAL_NMI: Final = 1 << 5
PIN_PREEMPTION_TIMER: Final = 1 << 6
# 25.6.2 primary
PROCESSOR_INTERRUPT_WINDOW: Final = 1 << 2
PROCESSOR_TSC_OFFSET: Final = 1 << 3
PROCESSOR_HLT: Final = 1 << 7
PROCESSOR_MWAIT: Final = 1 << 10
PROCESSOR_RDPMC: Final = 1 << 11
PROCESSOR_TPR_SHADOW: Final = 1 << 21
PROCESSOR_NMI_WINDOW: Final = 1 << 22
PROCESSOR_UNCONDITIONAL_IO: Final = 1 << 24
PROCESSOR_MSR_BITMAP: Final = 1 << 28
PROCESSOR_MONITOR: Final = 1 << 29
PROCESSOR_SECONDARY: Final = 1 << 31
# 25.6.2 secondary
SECONDARY_EPT: Final = 1 << 1
SECONDARY_RDTSCP: Final = 1 << 3
SECONDARY_VPID: Final = 1 << 5
SECONDARY_WBINVD: Final = 1 << 6
SECONDARY_UNRESTRICTED: Final = 1 << 7
SECONDARY_PAUSE_LOOP: Final = 1 << 10
SECONDARY_INVPCID: Final = 1 << 12
SECONDARY_XSAVES: Final = 1 << 20
# 25.7.1
EXIT_SAVE_DEBUG: Final = 1 << 2
EXIT_HOST_64: Final = 1 << 9
EXIT_ACKNOWLEDGE_INTERRUPT: Final = 1 << 15
EXIT_SAVE_PAT: Final = 1 << 18
EXIT_LOAD_PAT: Final = 1 << 19
EXIT_SAVE_EFER: Final = 1 << 20
EXIT_LOAD_EFER: Final = 1 << 21
EXIT_SAVE_PREEMPTION_TIMER: Final = 1 << 22
# 25.8.1
ENTRY_LOAD_DEBUG: Final = 1 << 2
ENTRY_IA32E_GUEST: Final = 1 << 9
ENTRY_LOAD_PAT: Final = 1 << 14
ENTRY_LOAD_EFER: Final = 1 << 15

# What Krait cannot do without.
WANTED: Final[Annotated[list[u32], GROUPS]] = [
    PIN_EXTERNAL_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMI | PIN_PREEMPTION_TIMER,
    PROCESSOR_TSC_OFFSET | PROCESSOR_HLT | PROCESSOR_MWAIT | PROCESSOR_RDPMC | PROCESSOR_TPR_SHADOW
    | PROCESSOR_UNCONDITIONAL_IO | PROCESSOR_MSR_BITMAP | PROCESSOR_MONITOR
    | PROCESSOR_SECONDARY,
    SECONDARY_EPT | SECONDARY_VPID | SECONDARY_WBINVD | SECONDARY_UNRESTRICTED,
    EXIT_SAVE_DEBUG | EXIT_HOST_64 | EXIT_ACKNOWLEDGE_INTERRUPT | EXIT_SAVE_PAT | EXIT_LOAD_PAT
    | EXIT_SAVE_EFER | EXIT_LOAD_EFER | EXIT_SAVE_PREEMPTION_TIMER,
    ENTRY_LOAD_DEBUG | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER]
# Toggled later: the CPU must allow both values.
SWITCHED: Final[Annotated[list[u32], GROUPS]] = [0, PROCESSOR_INTERRUPT_WINDOW | PROCESSOR_NMI_WINDOW, 0, 0, ENTRY_IA32E_GUEST]
# Taken where the CPU has them: guest instructions that raise #UD otherwise, and notice of vCPUs that spin (vtx/vcpu.py).
OPTIONAL: Final[Annotated[list[u32], GROUPS]] = [
    0, 0, SECONDARY_RDTSCP | SECONDARY_INVPCID | SECONDARY_XSAVES | SECONDARY_PAUSE_LOOP, 0, 0]

# Names of the manual, 32 a group.
CONTROL_NAME: Final[Annotated[list[str], 160]] = [
    "external-interrupt exiting", "", "", "NMI exiting", "", "virtual NMIs", "activate VMX-preemption timer",
    "process posted interrupts", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "",
    "", "",

    "", "", "interrupt-window exiting", "use TSC offsetting", "", "", "", "HLT exiting", "", "INVLPG exiting",
    "MWAIT exiting", "RDPMC exiting", "RDTSC exiting", "", "", "CR3-load exiting", "CR3-store exiting",
    "activate tertiary controls", "", "CR8-load exiting", "CR8-store exiting", "use TPR shadow", "NMI-window exiting",
    "MOV-DR exiting", "unconditional I/O exiting", "use I/O bitmaps", "", "monitor trap flag", "use MSR bitmaps",
    "MONITOR exiting", "PAUSE exiting", "activate secondary controls",

    "virtualize APIC accesses", "enable EPT", "descriptor-table exiting", "enable RDTSCP", "virtualize x2APIC mode",
    "enable VPID", "WBINVD exiting", "unrestricted guest", "APIC-register virtualization", "virtual-interrupt delivery",
    "PAUSE-loop exiting", "RDRAND exiting", "enable INVPCID", "enable VM functions", "VMCS shadowing",
    "enable ENCLS exiting", "RDSEED exiting", "enable PML", "EPT-violation #VE", "conceal VMX from PT",
    "enable XSAVES/XRSTORS", "", "mode-based execute control for EPT", "sub-page write permissions for EPT",
    "Intel PT uses guest physical addresses", "use TSC scaling", "enable user wait and pause", "enable PCONFIG",
    "enable ENCLV exiting", "", "", "",

    "", "", "save debug controls", "", "", "", "", "", "", "host address-space size", "", "",
    "load IA32_PERF_GLOBAL_CTRL", "", "", "acknowledge interrupt on exit", "", "", "save IA32_PAT", "load IA32_PAT",
    "save IA32_EFER", "load IA32_EFER", "save VMX-preemption timer value", "clear IA32_BNDCFGS",
    "conceal VMX from PT", "clear IA32_RTIT_CTL", "clear IA32_LBR_CTL", "", "load CET state", "load PKRS", "",
    "activate secondary exit controls",

    "", "", "load debug controls", "", "", "", "", "", "", "IA-32e mode guest", "entry to SMM",
    "deactivate dual-monitor treatment", "", "load IA32_PERF_GLOBAL_CTRL", "load IA32_PAT", "load IA32_EFER",
    "load IA32_BNDCFGS", "conceal VMX from PT", "load IA32_RTIT_CTL", "", "load CET state", "load guest IA32_LBR_CTL",
    "load PKRS", "", "", "", "", "", "", "", "", ""]


@struct
class ControlSet:
    """The control words for a new VMCS, as `choose_all` settled them."""

    words: Annotated[list[u32], GROUPS]


chosen: Final = ControlSet()


def report(group: u32, bits: u32, complaint: str) -> None:
    """One line for each control in `bits`."""
    for bit in range(32):
        if bits & (u64(1) << (bit & 31)) != 0:
            say(f"vtx: {GROUP_NAME[group]} control bit {bit} ({CONTROL_NAME[group * 32 + bit]}): {complaint}")


def choose(group: u32, capability: u64, wanted: u32, optional: u32, switched: u32) -> Status:
    """Settle one control word from its capability MSR (low half: must be 1, high half: may be 1).

    UNSUPPORTED, after naming each: a wanted or switched control that may not be 1, a switched one that must be 1, and
    a control that must be 1 though Krait neither wants it nor knows it to be harmless.
    """
    must_be_1 = u32(capability)
    may_be_1 = u32(capability >> 32)
    missing = u32((wanted | switched) & ~may_be_1)
    stuck = u32(switched & must_be_1)
    forced = u32(must_be_1 & ~(wanted | optional | switched | RESERVED_ONES[group]))
    report(group, missing, "the CPU lacks it")
    report(group, stuck, "the CPU cannot turn it off")
    report(group, forced, "the CPU forces it, Krait does not handle it")
    if missing != 0 or stuck != 0 or forced != 0:
        return Status.UNSUPPORTED
    chosen.words[group] = u32(wanted | (optional & may_be_1) | must_be_1)
    return Status.OK


def choose_all() -> Status:
    """Settle all control words of this CPU; says everything that is missing before it answers UNSUPPORTED."""
    exact = rdmsr(IA32_VMX_BASIC) & BASIC_TRUE_CONTROLS != 0
    result = Status.OK
    for group in range(GROUPS):
        msr: u32 = TRUE_CAPABILITY_MSR[group] if exact else CAPABILITY_MSR[group]
        status = choose(u32(group), rdmsr(msr), WANTED[group], OPTIONAL[group], SWITCHED[group])
        if status != Status.OK:
            result = status
    return result
