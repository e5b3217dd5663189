"""Event injection and the interrupt window (AMD APM vol. 2 rev. 3.42, 15.20, 15.21)."""
from hypervisor.arch_x86.defs.cr import RFLAGS_IF
from hypervisor.arch_x86.defs.svm import (EVENT_VALID, INTERCEPT_VINTR, INTERRUPT_SHADOW, V_IGN_TPR,
                                          V_INTR_MASKING, V_INTR_PRIO_MAX, V_IRQ)
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.lang import at, u32, u64
from hypervisor.model import Vcpu


def inject(vcpu: Vcpu, info: u32, error: u32) -> None:
    """Deliver an event at the next entry. `info` has VT-x's format, which is that of EVENTINJ for types 0, 2 and 3."""
    at(Vmcb, vcpu.backend_hva).event_injection = info | (u64(error) << 32)


def can_inject(vcpu: Vcpu) -> bool:
    """Would the guest take an external interrupt now, and is no other event on its way in?"""
    vmcb = at(Vmcb, vcpu.backend_hva)
    return (vmcb.rflags & RFLAGS_IF != 0 and vmcb.interrupt_shadow & INTERRUPT_SHADOW == 0
            and vmcb.event_injection & EVENT_VALID == 0)


def request_window(vcpu: Vcpu, wanted: bool) -> None:
    """Exit (INTERRUPT_WINDOW) as soon as the guest would take an interrupt, by way of a virtual one; or no longer."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    tpr: u64 = vmcb.v_intr & 0xFF
    if wanted:
        vmcb.v_intr = tpr | V_INTR_MASKING | V_IRQ | V_INTR_PRIO_MAX | V_IGN_TPR
        vmcb.intercept_misc1 = u32(vmcb.intercept_misc1 | INTERCEPT_VINTR)
    else:
        vmcb.v_intr = tpr | V_INTR_MASKING
        vmcb.intercept_misc1 = u32(vmcb.intercept_misc1 & ~INTERCEPT_VINTR)
