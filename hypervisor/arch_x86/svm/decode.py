"""#VMEXIT to VmExit (AMD APM vol. 2 rev. 3.42, 15.6-15.14, appendix C)."""
from typing import Final

from hypervisor.arch_x86.defs.svm import (
    EVENT_ERROR_VALID, EVENT_TYPE_SHIFT, EVENT_TYPE_SOFTWARE, EVENT_VALID, IOIO_IN, IOIO_PORT_SHIFT, IOIO_REP,
    IOIO_SIZE_MASK, IOIO_SIZE_SHIFT, IOIO_STR, MOV_CR_DECODED, NPF_FETCH, NPF_PAGE_WALK, NPF_WRITE)
from hypervisor.arch_x86.defs import svm_exit
from hypervisor.arch_x86.defs.cr import BP, OF
from hypervisor.arch_x86.defs.svm_exit import (
    VMEXIT_CLGI, VMEXIT_CPUID, VMEXIT_CR15_WRITE, VMEXIT_DR15_WRITE, VMEXIT_EXCP0, VMEXIT_EXCP31, VMEXIT_HLT, VMEXIT_INTR, VMEXIT_INVALID,
    VMEXIT_INVALID_32, VMEXIT_INVD, VMEXIT_INVLPG, VMEXIT_INVLPGA, VMEXIT_IOIO, VMEXIT_MONITOR, VMEXIT_MSR, VMEXIT_MWAIT,
    VMEXIT_MWAIT_CONDITIONAL, VMEXIT_NMI, VMEXIT_NPF, VMEXIT_PAUSE, VMEXIT_RDPMC, VMEXIT_RDPRU, VMEXIT_RDTSC,
    VMEXIT_RDTSCP, VMEXIT_SHUTDOWN, VMEXIT_SKINIT, VMEXIT_STGI, VMEXIT_VINTR, VMEXIT_VMLOAD, VMEXIT_VMMCALL,
    VMEXIT_VMRUN, VMEXIT_VMSAVE, VMEXIT_WBINVD, VMEXIT_XSETBV)
from hypervisor.arch_x86.redelivery import deliver_again
from hypervisor.arch_x86.svm.init import host
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.arch_x86.vm_exit import REGISTER_UNKNOWN, Cause, VmExit
from hypervisor.lang import at, u32, u64
from hypervisor.model import Vcpu

INSTRUCTION_BYTES_2: Final = 2  # CPUID, RDMSR, WRMSR, WBINVD, INVD: two bytes when they carry no prefix
INSTRUCTION_BYTES_3: Final = 3  # VMMCALL, XSETBV, MONITOR ...


def decode(vcpu: Vcpu, exit: VmExit) -> None:
    """Fill in `exit` from the VMCB, but for raw_*: see fill_raw."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    code = vmcb.exit_code
    if vmcb.exit_int_info & EVENT_VALID != 0:
        decode_interrupted_delivery(vcpu, vmcb, exit)
    match code:  # the frequent ones
        case svm_exit.VMEXIT_VMMCALL:
            exit.cause = Cause.HYPERCALL
            exit.length = instruction_length(vmcb, INSTRUCTION_BYTES_3)
        case svm_exit.VMEXIT_NPF:
            decode_nested_fault(vmcb, exit)
        case svm_exit.VMEXIT_IOIO:
            decode_io(vmcb, exit)
        case svm_exit.VMEXIT_INTR:
            exit.cause = Cause.INTERRUPT
            exit.vector = 0
        case svm_exit.VMEXIT_CPUID:
            exit.cause = Cause.CPUID
            exit.length = instruction_length(vmcb, INSTRUCTION_BYTES_2)
        case svm_exit.VMEXIT_MSR:
            exit.cause = Cause.WRMSR if vmcb.exit_info1 & 1 != 0 else Cause.RDMSR
            exit.length = instruction_length(vmcb, INSTRUCTION_BYTES_2)
        case svm_exit.VMEXIT_HLT:
            exit.cause = Cause.HLT
            exit.length = instruction_length(vmcb, 1)
        case _:
            decode_rare(vmcb, code, exit)


def instruction_length(vmcb: Vmcb, assumed: u32) -> u32:
    """Bytes of the instruction that exited: from the next RIP where the CPU saves it, else those of its usual encoding."""
    if host.nrip_save:
        return u32((vmcb.next_rip - vmcb.rip) & 15)
    return assumed


def decode_interrupted_delivery(vcpu: Vcpu, vmcb: Vmcb, exit: VmExit) -> None:
    """EXITINTINFO has the format of VT-x's IDT-vectoring information but for software exceptions.

    INT n, INT3 and INTO are executed again, because RIP is still at the instruction: nothing is to be injected.
    """
    info = vmcb.exit_int_info
    event_type: u64 = (info >> EVENT_TYPE_SHIFT) & 7
    vector: u64 = info & 0xFF
    if event_type == EVENT_TYPE_SOFTWARE or vector == BP or vector == OF:
        return
    exit.idt_vectoring = u32(info & (EVENT_VALID | EVENT_ERROR_VALID | (7 << EVENT_TYPE_SHIFT) | 0xFF))
    exit.idt_vectoring_error = u32(info >> 32)
    deliver_again(vcpu, exit)


def decode_nested_fault(vmcb: Vmcb, exit: VmExit) -> None:
    """NPF: EXITINFO1 is the error code, EXITINFO2 the guest-physical address (15.25.6)."""
    info = vmcb.exit_info1
    exit.cause = Cause.NESTED_FAULT
    exit.gpa = vmcb.exit_info2
    exit.in_page_walk = info & NPF_PAGE_WALK != 0
    exit.is_write = info & NPF_WRITE != 0
    exit.is_fetch = info & NPF_FETCH != 0


def decode_io(vmcb: Vmcb, exit: VmExit) -> None:
    """IOIO: EXITINFO1 describes the access, EXITINFO2 is the next RIP (15.10.2)."""
    info = vmcb.exit_info1
    exit.cause = Cause.IO
    exit.length = u32((vmcb.exit_info2 - vmcb.rip) & 15)
    exit.port = u32((info >> IOIO_PORT_SHIFT) & 0xFFFF)
    exit.size = u32((info >> IOIO_SIZE_SHIFT) & IOIO_SIZE_MASK)
    exit.is_in = info & IOIO_IN != 0
    exit.is_string = info & IOIO_STR != 0
    exit.is_rep = info & IOIO_REP != 0


def decode_rare(vmcb: Vmcb, code: u64, exit: VmExit) -> None:
    """Everything that is not on a hot path."""
    exit.length = 0
    exit.cause = cause_of(code)
    if code <= VMEXIT_DR15_WRITE:
        decode_register_access(vmcb, code, exit)
    elif VMEXIT_EXCP0 <= code <= VMEXIT_EXCP31:
        exit.vector = u32(code - VMEXIT_EXCP0)
        exit.error_code = u32(vmcb.exit_info1)
    elif host.nrip_save and vmcb.next_rip != 0:
        exit.length = u32((vmcb.next_rip - vmcb.rip) & 15)
    elif code in (VMEXIT_INVD, VMEXIT_WBINVD, VMEXIT_RDPMC):
        exit.length = INSTRUCTION_BYTES_2
    elif code == VMEXIT_XSETBV:
        exit.length = INSTRUCTION_BYTES_3


def decode_register_access(vmcb: Vmcb, code: u64, exit: VmExit) -> None:
    """MOV to or from CR and DR. Without decode assists the operand is unknown: instruction.complete reads the bytes."""
    exit.number = u32(code & 15)
    exit.is_write = code & 16 != 0
    exit.register = REGISTER_UNKNOWN
    known: bool = code > VMEXIT_CR15_WRITE or vmcb.exit_info1 & MOV_CR_DECODED != 0
    if host.decode_assists and host.nrip_save and known:
        exit.register = u32(vmcb.exit_info1 & 15)
        exit.length = u32((vmcb.next_rip - vmcb.rip) & 15)


def cause_of(code: u64) -> Cause:
    """The vendor-free cause of an exit code."""
    if code <= VMEXIT_CR15_WRITE:
        return Cause.CR_ACCESS
    if code <= VMEXIT_DR15_WRITE:
        return Cause.DR_ACCESS
    if code <= VMEXIT_EXCP31:
        return Cause.EXCEPTION
    if code in (VMEXIT_INVALID, VMEXIT_INVALID_32):
        return Cause.ENTRY_FAILURE
    if code in (VMEXIT_VMRUN, VMEXIT_VMLOAD, VMEXIT_VMSAVE, VMEXIT_STGI, VMEXIT_CLGI, VMEXIT_SKINIT, VMEXIT_INVLPGA,
                VMEXIT_RDPRU):
        return Cause.VMX_SVM_INSTRUCTION
    if code in (VMEXIT_MONITOR, VMEXIT_MWAIT, VMEXIT_MWAIT_CONDITIONAL):
        return Cause.MONITOR_MWAIT
    if code in (VMEXIT_WBINVD, VMEXIT_INVD):
        return Cause.WBINVD
    if code in (VMEXIT_RDTSC, VMEXIT_RDTSCP):
        return Cause.RDTSC
    if code == VMEXIT_NMI:
        return Cause.NMI
    if code == VMEXIT_VINTR:
        return Cause.INTERRUPT_WINDOW
    if code == VMEXIT_XSETBV:
        return Cause.XSETBV
    if code == VMEXIT_SHUTDOWN:
        return Cause.TRIPLE_FAULT
    if code == VMEXIT_INVLPG:
        return Cause.INVLPG
    if code == VMEXIT_PAUSE:
        return Cause.PAUSE
    return Cause.UNKNOWN


def fill_raw(vcpu: Vcpu, exit: VmExit) -> None:
    """For dumps: what the VMCB says of the latest exit."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    exit.raw_reason = vmcb.exit_code
    exit.raw_info1 = vmcb.exit_info1
    exit.raw_info2 = vmcb.exit_info2
