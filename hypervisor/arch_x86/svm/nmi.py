"""When a guest takes NMIs: between one and the end of its handler's IRET it does not (AMD APM vol. 2 rev. 3.42, 15.20, 15.21.4, 8.2.3).

Without virtual NMIs the hypervisor keeps count: IRET is intercepted while an NMI is being handled, and ends it once RIP has
moved on. If another NMI waits, that IRET is single-stepped, so that there is an exit behind it.
"""
from hypervisor.arch_x86.defs.cr import DR6_BS, RFLAGS_TF
from hypervisor.arch_x86.defs.svm import EVENT_VALID, INTERCEPT_IRET, INTERRUPT_SHADOW, V_IRQ
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.lang import at, u32
from hypervisor.model import Vcpu


def begin(vcpu: Vcpu, vmcb: Vmcb) -> None:
    """An NMI is injected at the next entry."""
    vcpu.nmi_masked = True
    vcpu.nmi_returns = False
    vmcb.intercept_misc1 = u32(vmcb.intercept_misc1 | INTERCEPT_IRET)


def drop_events(vcpu: Vcpu) -> None:
    """INIT: no event is on its way in, no NMI is being handled."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    vmcb.event_injection = 0
    vmcb.v_intr = vmcb.v_intr & ~V_IRQ
    vmcb.interrupt_shadow = 0
    vcpu.nmi_masked = False
    vcpu.nmi_returns = False
    vcpu.nmi_steps = False
    vmcb.intercept_misc1 = u32(vmcb.intercept_misc1 & ~INTERCEPT_IRET)


def returning(vcpu: Vcpu, vmcb: Vmcb) -> None:
    """#VMEXIT(IRET): the handler is about to return."""
    vmcb.intercept_misc1 = u32(vmcb.intercept_misc1 & ~INTERCEPT_IRET)
    vcpu.nmi_returns = True
    vcpu.nmi_return_rip = vmcb.rip


def can_inject(vcpu: Vcpu) -> bool:
    """Would the guest take an NMI now, and is no other event on its way in?"""
    vmcb = at(Vmcb, vcpu.backend_hva)
    if vcpu.nmi_masked and vcpu.nmi_returns and vcpu.regs.rip != vcpu.nmi_return_rip:
        vcpu.nmi_masked = False
        vcpu.nmi_returns = False
    return not vcpu.nmi_masked and vmcb.interrupt_shadow & INTERRUPT_SHADOW == 0 and vmcb.event_injection & EVENT_VALID == 0


def request_window(vcpu: Vcpu, wanted: bool) -> None:
    """Exit behind the IRET that is about to run; until there is one, its intercept is the window."""
    if wanted and vcpu.nmi_masked and vcpu.nmi_returns and not vcpu.nmi_steps:
        vmcb = at(Vmcb, vcpu.backend_hva)
        if vmcb.rflags & RFLAGS_TF == 0:
            vcpu.nmi_steps = True
            vmcb.rflags |= RFLAGS_TF


def stepped(vcpu: Vcpu) -> bool:
    """#DB: was it the step that request_window asked for? Then the guest never sees it."""
    if not vcpu.nmi_steps:
        return False
    vcpu.nmi_steps = False
    vmcb = at(Vmcb, vcpu.backend_hva)
    vmcb.dr6 = vmcb.dr6 & ~DR6_BS
    return True
