"""Events into the guest at the next entry. Source: Intel SDM vol. 3C 25.8.3, 27.6; format of the interruption information."""
from typing import Final

from hypervisor.addresses import Hpa, Hva, hva_of
from hypervisor.arch_x86.defs.cr import CR0_PE, RFLAGS_IF
from hypervisor.arch_x86.intrinsics import load_u8, store_u8, vmread, vmwrite
from hypervisor.arch_x86.vtx import vmcs
from hypervisor.arch_x86.vtx.controls import PROCESSOR_INTERRUPT_WINDOW, PROCESSOR_NMI_WINDOW
from hypervisor.arch_x86.vtx.current import use
from hypervisor.lang import u8, u32, u64
from hypervisor.model import Vcpu

# Valid, error code valid, type, vector; bit 12 means something else on the way out.
ENTRY_INFO_BITS: Final = 0x80000FFF
VIRTUAL_TPR: Final = 0x80  # in the virtual-APIC page


def inject(vcpu: Vcpu, info: u32, error: u32) -> None:
    """Deliver the event `info` (interruption-information format) at the next entry.

    Types are external interrupt, NMI and hardware exception. In real mode no exception has an error code (27.2.1.3).
    """
    use(vcpu)
    entry: u32 = info & ENTRY_INFO_BITS
    if entry & vmcs.INTERRUPTION_ERROR_VALID != 0:
        if vmread(vmcs.GUEST_CR0) & CR0_PE == 0:
            entry = entry & ~vmcs.INTERRUPTION_ERROR_VALID
        else:
            vmwrite(vmcs.ENTRY_EXCEPTION_ERROR, error)
    vmwrite(vmcs.ENTRY_INTERRUPTION_INFO, entry)


def can_inject(vcpu: Vcpu) -> bool:
    """Whether an external interrupt may be delivered at the next entry: IF set, no STI or MOV SS shadow, nothing due.

    The shadow in the VMCS is that of the instruction that exited. When RIP has moved, that one was emulated, and it is over.
    """
    use(vcpu)
    if vmread(vmcs.GUEST_RFLAGS) & RFLAGS_IF == 0:
        return False
    blocked = vmread(vmcs.GUEST_INTERRUPTIBILITY)
    if blocked & vmcs.BLOCKED_BY_SHADOW != 0:
        if vcpu.regs.rip == vmread(vmcs.GUEST_RIP):
            return False
        vmwrite(vmcs.GUEST_INTERRUPTIBILITY, blocked & ~vmcs.BLOCKED_BY_SHADOW)
    return vmread(vmcs.ENTRY_INTERRUPTION_INFO) & vmcs.INTERRUPTION_VALID == 0


def request_window(vcpu: Vcpu, wanted: bool) -> None:
    """Exit as soon as the guest can take an interrupt, or do not."""
    use(vcpu)
    switch(PROCESSOR_INTERRUPT_WINDOW, wanted)


def switch(control: u64, on: bool) -> None:
    """A processor control of the current VMCS."""
    have = vmread(vmcs.PROCESSOR_CONTROLS)
    want: u64 = have & ~control
    if on:
        want = want | control
    if want != have:
        vmwrite(vmcs.PROCESSOR_CONTROLS, want)


def can_inject_nmi(vcpu: Vcpu) -> bool:
    """Whether an NMI may be delivered at the next entry: none is being handled, no shadow, nothing due (26.6.1)."""
    use(vcpu)
    blocked = vmread(vmcs.GUEST_INTERRUPTIBILITY)
    if blocked & vmcs.BLOCKED_BY_SHADOW != 0 and vcpu.regs.rip != vmread(vmcs.GUEST_RIP):
        vmwrite(vmcs.GUEST_INTERRUPTIBILITY, blocked & ~vmcs.BLOCKED_BY_SHADOW)
        blocked = blocked & ~vmcs.BLOCKED_BY_SHADOW
    if blocked & (vmcs.BLOCKED_BY_NMI | vmcs.BLOCKED_BY_SHADOW) != 0:
        return False
    return vmread(vmcs.ENTRY_INTERRUPTION_INFO) & vmcs.INTERRUPTION_VALID == 0


def request_nmi_window(vcpu: Vcpu, wanted: bool) -> None:
    """Exit as soon as the guest can take an NMI, or do not."""
    use(vcpu)
    switch(PROCESSOR_NMI_WINDOW, wanted)


def virtual_tpr() -> Hva:
    """Where the current VMCS keeps the guest's TPR (30.1.1)."""
    return Hva(hva_of(Hpa(vmread(vmcs.VIRTUAL_APIC_PAGE))) + VIRTUAL_TPR)


def cr8(vcpu: Vcpu) -> u32:
    """The guest's CR8."""
    use(vcpu)
    return u32(load_u8(virtual_tpr()) >> 4)


def set_cr8(vcpu: Vcpu, value: u32) -> None:
    """Change it."""
    use(vcpu)
    store_u8(virtual_tpr(), u8(value << 4 & 0xF0))


def watch_cr8(vcpu: Vcpu, below: u32) -> None:
    """The TPR threshold; 0: none."""
    use(vcpu)
    vmwrite(vmcs.TPR_THRESHOLD, below)


def drop_events(vcpu: Vcpu) -> None:
    """INIT: no event is on its way in, nothing is blocked."""
    use(vcpu)
    vmwrite(vmcs.ENTRY_INTERRUPTION_INFO, 0)
    vmwrite(vmcs.GUEST_INTERRUPTIBILITY, 0)
    vmwrite(vmcs.GUEST_PENDING_DEBUG, 0)
