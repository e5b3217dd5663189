"""#VMEXIT to VmExit (AMD APM vol. 2 rev. 3.42, 15.6-15.14, appendix C)."""
from typing import Final

from hypervisor.arch_x86.defs.svm import (
    EVENT_ERROR_VALID, EVENT_TYPE_EXCEPTION, EVENT_TYPE_INTR, EVENT_TYPE_SHIFT, EVENT_TYPE_SOFTWARE, EVENT_VALID, IOIO_IN,
    IOIO_PORT_SHIFT, IOIO_REP, IOIO_SIZE_MASK, IOIO_SIZE_SHIFT, IOIO_STR, MOV_CR_DECODED, NPF_FETCH, NPF_PAGE_WALK, NPF_WRITE, V_IRQ)
from hypervisor.arch_x86.defs import svm_exit
from hypervisor.arch_x86.defs.cr import BP, DB, OF
from hypervisor.arch_x86.defs.svm_exit import VMEXIT_CR15_WRITE, VMEXIT_INVALID, VMEXIT_INVALID_32
from hypervisor.arch_x86.redelivery import deliver_again
from hypervisor.arch_x86.svm import exit_table, inject, nmi
from hypervisor.arch_x86.svm.init import host
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.arch_x86.vm_exit import REGISTER_UNKNOWN, Cause, VmExit
from hypervisor.lang import at, u32, u64
from hypervisor.model import Vcpu

EXCEPTIONS: Final = 32  # vectors from here on are interrupts'


def decode(vcpu: Vcpu, exit: VmExit) -> None:
    """Fill in `exit` from the VMCB, but for raw_*: see fill_raw."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    code = vmcb.exit_code
    if vmcb.exit_int_info & EVENT_VALID != 0:
        decode_interrupted_delivery(vcpu, vmcb, exit)
    if code < exit_table.CODES:
        entry = exit_table.table.entries[code]
        exit.cause = entry.cause
        exit.length = entry.length
        if entry.more:
            decode_more(vcpu, vmcb, code, exit)
    elif code == svm_exit.VMEXIT_NPF:
        decode_nested_fault(vmcb, exit)
    else:
        exit.cause = Cause.ENTRY_FAILURE if code in (VMEXIT_INVALID, VMEXIT_INVALID_32) else Cause.UNKNOWN


def decode_more(vcpu: Vcpu, vmcb: Vmcb, code: u64, exit: VmExit) -> None:
    """What the code alone does not tell."""
    if code == svm_exit.VMEXIT_IOIO:
        decode_io(vmcb, exit)
        return
    if code <= svm_exit.VMEXIT_DR15_WRITE:
        decode_register_access(vmcb, code, exit)
        return
    if code == svm_exit.VMEXIT_CR0_SEL_WRITE:
        decode_register_access(vmcb, svm_exit.VMEXIT_CR0_WRITE, exit)
        return
    if svm_exit.VMEXIT_EXCP0 <= code <= svm_exit.VMEXIT_EXCP31:
        exit.vector = u32(code - svm_exit.VMEXIT_EXCP0)
        exit.error_code = u32(vmcb.exit_info1)
        if exit.vector == DB and nmi.stepped(vcpu):
            exit.cause = Cause.INTERRUPT_WINDOW
        return
    if code == svm_exit.VMEXIT_IRET:
        nmi.returning(vcpu, vmcb)
        return
    if code == svm_exit.VMEXIT_INTR:
        exit.vector = 0
        return
    if code == svm_exit.VMEXIT_MSR and vmcb.exit_info1 & 1 != 0:
        exit.cause = Cause.WRMSR
    if host.nrip_save and vmcb.next_rip != 0:
        exit.length = u32((vmcb.next_rip - vmcb.rip) & 15)


def decode_interrupted_delivery(vcpu: Vcpu, vmcb: Vmcb, exit: VmExit) -> None:
    """EXITINTINFO has the format of VT-x's IDT-vectoring information but for software exceptions.

    INT n, INT3 and INTO are executed again, because RIP is still at the instruction: nothing is to be injected. A virtual interrupt
    is pending no more; QEMU 7.2 leaves it so, and calls it an exception.
    """
    info = vmcb.exit_int_info
    event_type: u64 = (info >> EVENT_TYPE_SHIFT) & 7
    vector: u64 = info & 0xFF
    if event_type == EVENT_TYPE_EXCEPTION and vector >= EXCEPTIONS:
        info = info & ~(7 << EVENT_TYPE_SHIFT)
        event_type = EVENT_TYPE_INTR
    if event_type == EVENT_TYPE_INTR and inject.on_its_way(vmcb):
        vmcb.v_intr = vmcb.v_intr & ~V_IRQ
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


def decode_register_access(vmcb: Vmcb, code: u64, exit: VmExit) -> None:
    """MOV to or from CR and DR. Without decode assists the operand is unknown: exit_completion reads the bytes."""
    exit.number = u32(code & 15)
    exit.is_write = code & 16 != 0
    exit.register = REGISTER_UNKNOWN
    known: bool = code > VMEXIT_CR15_WRITE or vmcb.exit_info1 & MOV_CR_DECODED != 0
    if host.decode_assists and host.nrip_save and known:
        exit.register = u32(vmcb.exit_info1 & 15)
        exit.length = u32((vmcb.next_rip - vmcb.rip) & 15)


def fill_raw(vcpu: Vcpu, exit: VmExit) -> None:
    """For dumps: what the VMCB says of the latest exit."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    exit.raw_reason = vmcb.exit_code
    exit.raw_info1 = vmcb.exit_info1
    exit.raw_info2 = vmcb.exit_info2
