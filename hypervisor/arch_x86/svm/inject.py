"""Event injection and the interrupt window (AMD APM vol. 2 rev. 3.42, 15.20, 15.21).

External interrupts are injected as virtual ones (V_IRQ with a vector), not by EVENTINJ: QEMU 7.2 remembers the vector of such an
injection (helper_vmrun leaves it in exception_index) and delivers it a second time, to a guest with interrupts off too, if its
execution loop is left before the next #VMEXIT, as -icount does whenever a timer is due.
"""
from hypervisor.arch_x86.defs.cr import RFLAGS_IF, RFLAGS_TF
from hypervisor.arch_x86.defs.svm import (EVENT_TYPE_INTR, EVENT_TYPE_NMI, EVENT_TYPE_SHIFT, EVENT_VALID, INTERCEPT_CR8_WRITE,
                                          INTERCEPT_IRET, INTERCEPT_VINTR, INTERRUPT_SHADOW, V_IGN_TPR, V_INTR_MASKING, V_INTR_PRIO_MAX,
                                          V_INTR_VECTOR_SHIFT, V_IRQ, V_TPR_MASK)
from hypervisor.arch_x86.svm import nmi
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.lang import at, u32, u64
from hypervisor.model import Vcpu


def inject(vcpu: Vcpu, info: u32, error: u32) -> None:
    """Deliver an event at the next entry. `info` has VT-x's format, which is that of EVENTINJ for types 0, 2 and 3."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    kind: u32 = info >> EVENT_TYPE_SHIFT & 7
    if kind == EVENT_TYPE_INTR:
        vmcb.v_intr = vmcb.v_intr & 0xFF | V_INTR_MASKING | V_IRQ | V_INTR_PRIO_MAX | V_IGN_TPR | u64(info & 0xFF) << V_INTR_VECTOR_SHIFT
        vmcb.intercept_misc1 = u32(vmcb.intercept_misc1 & ~INTERCEPT_VINTR)
        return
    vmcb.event_injection = info | (u64(error) << 32)
    if kind == EVENT_TYPE_NMI:
        nmi.begin(vcpu, vmcb)


def on_its_way(vmcb: Vmcb) -> bool:
    """Does a virtual interrupt that `inject` gave still wait? (That of a window is intercepted.)"""
    return vmcb.v_intr & V_IRQ != 0 and vmcb.intercept_misc1 & INTERCEPT_VINTR == 0


def can_inject(vcpu: Vcpu) -> bool:
    """Would the guest take an external interrupt now, and is no other event on its way in?"""
    vmcb = at(Vmcb, vcpu.backend_hva)
    return (vmcb.rflags & RFLAGS_IF != 0 and vmcb.interrupt_shadow & INTERRUPT_SHADOW == 0
            and vmcb.event_injection & EVENT_VALID == 0 and not on_its_way(vmcb))


def behind_sti(vcpu: Vcpu) -> bool:
    """Is nothing but a shadow in the way of interrupts? An event that is injected needs RIP where it is. Not told if the guest is
    single-stepped: each step is seen."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    return vmcb.interrupt_shadow & INTERRUPT_SHADOW != 0 and vmcb.event_injection & EVENT_VALID == 0 and vmcb.rflags & (RFLAGS_IF | RFLAGS_TF) == RFLAGS_IF


def before_sti(vcpu: Vcpu) -> None:
    """Interrupts are off, without a shadow."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    vmcb.interrupt_shadow = 0
    vmcb.rflags = vmcb.rflags & ~RFLAGS_IF


def request_window(vcpu: Vcpu, wanted: bool) -> None:
    """Exit (INTERRUPT_WINDOW) as soon as the guest would take an interrupt, by way of a virtual one; or no longer.

    Behind one that is on its way there is no room for it in the VMCB: the window is then the end of that one's handler. (An NMI's IRET
    comes before; the exit behind it, whichever it is, looks again.)
    """
    vmcb = at(Vmcb, vcpu.backend_hva)
    if on_its_way(vmcb):
        if wanted and not vcpu.nmi_masked:
            vmcb.intercept_misc1 = u32(vmcb.intercept_misc1 | INTERCEPT_IRET)
        return
    tpr: u64 = vmcb.v_intr & 0xFF
    if wanted:
        vmcb.v_intr = tpr | V_INTR_MASKING | V_IRQ | V_INTR_PRIO_MAX | V_IGN_TPR
        vmcb.intercept_misc1 = u32(vmcb.intercept_misc1 | INTERCEPT_VINTR)
    else:
        vmcb.v_intr = tpr | V_INTR_MASKING
        vmcb.intercept_misc1 = u32(vmcb.intercept_misc1 & ~INTERCEPT_VINTR)


def cr8(vcpu: Vcpu) -> u32:
    """The guest's CR8: V_TPR (15.21.1)."""
    return u32(at(Vmcb, vcpu.backend_hva).v_intr & 0xF)


def set_cr8(vcpu: Vcpu, value: u32) -> None:
    """Change V_TPR."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    vmcb.v_intr = vmcb.v_intr & ~V_TPR_MASK | value


def watch_cr8(vcpu: Vcpu, below: u32) -> None:
    """There is no threshold: writes exit while something waits for one."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    if below != 0:
        vmcb.intercept_cr = u32(vmcb.intercept_cr | INTERCEPT_CR8_WRITE)
    else:
        vmcb.intercept_cr = u32(vmcb.intercept_cr & ~INTERCEPT_CR8_WRITE)
