"""VM exit to VmExit. Source: Intel SDM vol. 3C 28.2 (information recorded at exits), vol. 3D appendix C (reasons)."""
from typing import Annotated, Final

from hypervisor.arch_x86.defs.cr import DB, DF
from hypervisor.arch_x86.intrinsics import raise_nmi, read_dr6, vmread, vmwrite, write_dr6
from hypervisor.arch_x86.vm_exit import Cause, VmExit
from hypervisor.arch_x86.vtx import failure, vmcs
from hypervisor.arch_x86.vtx.current import here, use
from hypervisor.lang import u32, u64
from hypervisor.model import Vcpu

# Basic exit reasons that decode looks at by number (appendix C).
EXCEPTION_OR_NMI: Final = 0
EXTERNAL_INTERRUPT: Final = 1
CPUID: Final = 10
HLT: Final = 12
VMCALL: Final = 18
CONTROL_REGISTER: Final = 28
DEBUG_REGISTER: Final = 29
IO_INSTRUCTION: Final = 30
RDMSR: Final = 31
WRMSR: Final = 32
EPT_VIOLATION: Final = 48
PREEMPTION_TIMER: Final = 52
# What enter.S answers in place of a reason when there was no exit.
NOT_ENTERED_VALID: Final = 0xFFFE  # VMfailValid: the VMCS says why
NOT_ENTERED_INVALID: Final = 0xFFFF  # VMfailInvalid

REASONS: Final = 65
CAUSE: Final[Annotated[list[Cause], REASONS]] = [
    Cause.EXCEPTION, Cause.INTERRUPT, Cause.TRIPLE_FAULT, Cause.UNKNOWN,  # 0 exception or NMI, interrupt, triple fault, INIT
    Cause.UNKNOWN, Cause.UNKNOWN, Cause.UNKNOWN, Cause.INTERRUPT_WINDOW,  # 4 SIPI, I/O SMI, SMI, interrupt window
    Cause.INTERRUPT_WINDOW, Cause.UNKNOWN, Cause.CPUID, Cause.VMX_SVM_INSTRUCTION,  # 8 NMI window, task switch, CPUID, GETSEC
    Cause.HLT, Cause.WBINVD, Cause.INVLPG, Cause.RDPMC,  # 12 HLT, INVD, INVLPG, RDPMC
    Cause.RDTSC, Cause.UNKNOWN, Cause.HYPERCALL, Cause.VMX_SVM_INSTRUCTION,  # 16 RDTSC, RSM, VMCALL, VMCLEAR
    Cause.VMX_SVM_INSTRUCTION, Cause.VMX_SVM_INSTRUCTION, Cause.VMX_SVM_INSTRUCTION, Cause.VMX_SVM_INSTRUCTION,  # 20
    Cause.VMX_SVM_INSTRUCTION, Cause.VMX_SVM_INSTRUCTION, Cause.VMX_SVM_INSTRUCTION, Cause.VMX_SVM_INSTRUCTION,  # 24
    Cause.CR_ACCESS, Cause.DR_ACCESS, Cause.IO, Cause.RDMSR,  # 28 CR, DR, I/O, RDMSR
    Cause.WRMSR, Cause.ENTRY_FAILURE, Cause.ENTRY_FAILURE, Cause.UNKNOWN,  # 32 WRMSR, guest state, MSR loading
    Cause.MONITOR_MWAIT, Cause.UNKNOWN, Cause.UNKNOWN, Cause.MONITOR_MWAIT,  # 36 MWAIT, trap flag, -, MONITOR
    Cause.PAUSE, Cause.ENTRY_FAILURE, Cause.UNKNOWN, Cause.INTERRUPT_WINDOW,  # 40 PAUSE, machine check at entry, -, TPR
    Cause.UNKNOWN, Cause.UNKNOWN, Cause.UNKNOWN, Cause.UNKNOWN,  # 44 APIC access, EOI, GDTR/IDTR, LDTR/TR
    Cause.NESTED_FAULT, Cause.UNKNOWN, Cause.VMX_SVM_INSTRUCTION, Cause.RDTSC,  # 48 EPT violation, bad entry, INVEPT, RDTSCP
    Cause.INTERRUPT, Cause.VMX_SVM_INSTRUCTION, Cause.WBINVD, Cause.XSETBV,  # 52 timer, INVVPID, WBINVD, XSETBV
    Cause.UNKNOWN, Cause.UNKNOWN, Cause.UNKNOWN, Cause.VMX_SVM_INSTRUCTION,  # 56 APIC write, RDRAND, INVPCID, VMFUNC
    Cause.VMX_SVM_INSTRUCTION, Cause.UNKNOWN, Cause.UNKNOWN, Cause.UNKNOWN,  # 60 ENCLS, RDSEED, PML full, XSAVES
    Cause.UNKNOWN]  # 64 XRSTORS

BASIC_REASON: Final = 0xFFFF
DR6_TRAPS: Final = 0xF  # B0 to B3: each #DB sets them anew
DR6_CAUSES: Final = 0x600F  # and BD, BS, which stay until cleared

# 28.2.1, table 28-5: I/O instructions
IO_SIZE_LESS_1: Final = 7
IO_IN: Final = 1 << 3
IO_STRING: Final = 1 << 4
IO_REP: Final = 1 << 5
IO_PORT_SHIFT: Final = 16
# table 28-3: MOV to and from control registers
CR_TYPE_SHIFT: Final = 4
CR_TYPE_TO: Final = 0
CR_TYPE_FROM: Final = 1
# table 28-4: MOV DR
DR_FROM: Final = 1 << 4
# table 28-7: EPT violations
EPT_IS_WRITE: Final = 1 << 1
EPT_IS_FETCH: Final = 1 << 2
EPT_LINEAR_VALID: Final = 1 << 7
EPT_NOT_WALK: Final = 1 << 8
EPT_NMI_UNBLOCKED: Final = 1 << 12


def decode(vcpu: Vcpu, exit: VmExit) -> None:
    """Fill in `exit`, directly after enter, which has left the reason in raw_reason and this VMCS the current one.

    An NMI that ended the guest's run has reached the host's handler when this returns.
    """
    basic = u32(exit.raw_reason & BASIC_REASON)
    if basic == VMCALL:  # first, because they are frequent
        exit.cause = Cause.HYPERCALL
    elif basic == EPT_VIOLATION:
        decode_nested_fault(exit)
        return
    elif basic == IO_INSTRUCTION:
        decode_io(exit)
    elif basic == EXTERNAL_INTERRUPT:
        exit.cause = Cause.INTERRUPT
        exit.length = 0
        exit.vector = u32(vmread(vmcs.EXIT_INTERRUPTION_INFO) & vmcs.INTERRUPTION_VECTOR)
        return
    elif basic == CPUID:
        exit.cause = Cause.CPUID
    elif basic == RDMSR:
        exit.cause = Cause.RDMSR
    elif basic == WRMSR:
        exit.cause = Cause.WRMSR
    elif basic == HLT:
        exit.cause = Cause.HLT
    else:
        decode_rare(basic, exit)
        return
    exit.length = u32(vmread(vmcs.EXIT_INSTRUCTION_LENGTH))


def decode_rare(basic: u32, exit: VmExit) -> None:
    """Everything that is not on a hot path."""
    exit.length = 0
    if basic >= NOT_ENTERED_VALID:
        decode_failed_entry(basic, exit)
        return
    exit.cause = CAUSE[basic] if basic < REASONS else Cause.UNKNOWN
    exit.raw_info1 = vmread(vmcs.EXIT_QUALIFICATION)
    exit.raw_info2 = vmread(vmcs.GUEST_PHYSICAL_ADDRESS)
    decode_interrupted_delivery(exit)
    if exit.cause == Cause.ENTRY_FAILURE:
        failure.explain_guest_state(basic, exit.raw_info1)
    elif basic == PREEMPTION_TIMER:
        exit.vector = 0
        vmwrite(vmcs.PREEMPTION_TIMER, here.preemption_ticks)
    elif basic == EXCEPTION_OR_NMI:
        decode_exception(exit)
    elif exit.cause not in (Cause.UNKNOWN, Cause.TRIPLE_FAULT, Cause.INTERRUPT_WINDOW):
        exit.length = u32(vmread(vmcs.EXIT_INSTRUCTION_LENGTH))
        if basic == CONTROL_REGISTER:
            decode_control_register(exit)
        elif basic == DEBUG_REGISTER:
            exit.number = u32(exit.raw_info1 & 7)
            exit.is_write = exit.raw_info1 & DR_FROM == 0
            exit.register = u32((exit.raw_info1 >> 8) & 15)


def decode_failed_entry(answer: u32, exit: VmExit) -> None:
    """VMLAUNCH or VMRESUME did not enter at all (31.2): raw_info1 is the VM-instruction error, 0 for VMfailInvalid."""
    exit.cause = Cause.ENTRY_FAILURE
    exit.raw_info1 = vmread(vmcs.INSTRUCTION_ERROR) if answer == NOT_ENTERED_VALID else 0
    exit.raw_info2 = 0
    failure.explain_instruction(exit.raw_info1)


def decode_interrupted_delivery(exit: VmExit) -> None:
    """Did the exit come while an event was delivered (28.2.4)? Interrupts, NMIs and exceptions are to be injected again.

    INT n, INT3, INTO and INT1 are executed again, because RIP is still at the instruction (28.3.3). Exits by an
    instruction never come during a delivery.
    """
    info = u32(vmread(vmcs.IDT_VECTORING_INFO))
    kind = info & vmcs.INTERRUPTION_TYPE
    exit.idt_vectoring = 0
    if info & vmcs.INTERRUPTION_VALID == 0 or kind > vmcs.TYPE_HARDWARE_EXCEPTION:
        return
    if kind == vmcs.TYPE_NMI:
        blocked = vmread(vmcs.GUEST_INTERRUPTIBILITY)
        vmwrite(vmcs.GUEST_INTERRUPTIBILITY, blocked & ~vmcs.BLOCKED_BY_NMI)
    exit.idt_vectoring = info & (vmcs.INTERRUPTION_VALID | vmcs.INTERRUPTION_ERROR_VALID | vmcs.INTERRUPTION_TYPE
                                 | vmcs.INTERRUPTION_VECTOR)
    exit.idt_vectoring_error = u32(vmread(vmcs.IDT_VECTORING_ERROR))


def block_nmi(exit: VmExit) -> None:
    """An IRET unblocked NMIs and then faulted: it will run again, so they are blocked until then (28.2.3)."""
    if exit.idt_vectoring == 0:
        vmwrite(vmcs.GUEST_INTERRUPTIBILITY, vmread(vmcs.GUEST_INTERRUPTIBILITY) | vmcs.BLOCKED_BY_NMI)


def decode_nested_fault(exit: VmExit) -> None:
    """EPT violation."""
    qualification = vmread(vmcs.EXIT_QUALIFICATION)
    exit.cause = Cause.NESTED_FAULT
    exit.length = 0
    exit.gpa = vmread(vmcs.GUEST_PHYSICAL_ADDRESS)
    decode_interrupted_delivery(exit)
    exit.is_write = qualification & EPT_IS_WRITE != 0
    exit.is_fetch = qualification & EPT_IS_FETCH != 0
    exit.in_page_walk = qualification & (EPT_LINEAR_VALID | EPT_NOT_WALK) == EPT_LINEAR_VALID
    if qualification & EPT_NMI_UNBLOCKED != 0:
        block_nmi(exit)


def decode_exception(exit: VmExit) -> None:
    """An exception of the exception bitmap, or an NMI: that one is the host's, and its IRET lets the next one come."""
    info = u32(vmread(vmcs.EXIT_INTERRUPTION_INFO))
    exit.vector = info & vmcs.INTERRUPTION_VECTOR
    if info & vmcs.INTERRUPTION_TYPE == vmcs.TYPE_NMI:
        exit.cause = Cause.NMI
        raise_nmi()
        return
    exit.error_code = 0
    if exit.vector == DB:
        settle_debug_exception(exit.raw_info1)
    if info & vmcs.INTERRUPTION_ERROR_VALID != 0:
        exit.error_code = u32(vmread(vmcs.EXIT_INTERRUPTION_ERROR))
    if info & vmcs.INTERRUPTION_NMI_UNBLOCKED != 0 and exit.vector != DF:
        block_nmi(exit)


def settle_debug_exception(qualification: u64) -> None:
    """#DB exits before it reaches DR6 (28.2.1, table 28-1): do that here, so that it can be injected as it is.

    The shadow of an STI or MOV SS ends with the injection; with TF set, the entry would refuse it (27.3.1.5).
    """
    write_dr6((read_dr6() & ~DR6_TRAPS) | (qualification & DR6_CAUSES))
    blocked = vmread(vmcs.GUEST_INTERRUPTIBILITY)
    if blocked & vmcs.BLOCKED_BY_SHADOW != 0:
        vmwrite(vmcs.GUEST_INTERRUPTIBILITY, blocked & ~vmcs.BLOCKED_BY_SHADOW)


def decode_io(exit: VmExit) -> None:
    """IN, OUT, INS, OUTS."""
    qualification = vmread(vmcs.EXIT_QUALIFICATION)
    exit.cause = Cause.IO
    exit.port = u32((qualification >> IO_PORT_SHIFT) & 0xFFFF)
    exit.size = u32((qualification & IO_SIZE_LESS_1) + 1)
    exit.is_in = qualification & IO_IN != 0
    exit.is_string = qualification & IO_STRING != 0
    exit.is_rep = qualification & IO_REP != 0


def decode_control_register(exit: VmExit) -> None:
    """MOV to or from CR0 and CR4. CLTS and LMSW never exit, because TS, EM, MP and PE are the guest's own."""
    kind = (exit.raw_info1 >> CR_TYPE_SHIFT) & 3
    exit.number = u32(exit.raw_info1 & 15)
    exit.is_write = kind == CR_TYPE_TO
    exit.register = u32((exit.raw_info1 >> 8) & 15)
    if kind != CR_TYPE_TO and kind != CR_TYPE_FROM:
        exit.cause = Cause.UNKNOWN


def fill_raw(vcpu: Vcpu, exit: VmExit) -> None:
    """For dumps; an entry that failed has been filled in by decode."""
    use(vcpu)
    if exit.cause != Cause.ENTRY_FAILURE:
        exit.raw_info1 = vmread(vmcs.EXIT_QUALIFICATION)
        exit.raw_info2 = vmread(vmcs.GUEST_PHYSICAL_ADDRESS)
