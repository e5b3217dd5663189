"""What a guest is to be told before it runs on: exceptions, interrupted deliveries, events and interrupts.

Restartable: what cannot be handed over yet stays pending.
"""
from typing import Final

from hypervisor import apic_bus, board, event_delivery, interrupt_shadow, pv_eoi, vcpu_startup
from hypervisor.arch_x86 import backend
from hypervisor.cpu import owe
from hypervisor.lang import u32
from hypervisor.model import WORK_INJECT, Vcpu
from hypervisor.virtio import service

# VT-x interruption information (SDM vol. 3C 25.8.3), which EVENTINJ shares
INFO_VALID: Final[u32] = 1 << 31
INFO_ERROR_CODE: Final[u32] = 1 << 11
TYPE_INTERRUPT: Final[u32] = 0 << 8
TYPE_MASK: Final[u32] = 7 << 8
TYPE_NMI: Final[u32] = 2 << 8
TYPE_EXCEPTION: Final[u32] = 3 << 8
NMI_VECTOR: Final[u32] = 2


def exception(vcpu: Vcpu, vector: u32) -> None:
    """Raise an exception without error code in the guest; RIP must be at the instruction at fault."""
    vcpu.exception_pending = True
    vcpu.exception_has_error = False
    vcpu.exception_vector = vector
    owe(WORK_INJECT)


def exception_with_error(vcpu: Vcpu, vector: u32, error: u32) -> None:
    """Raise an exception that pushes an error code."""
    exception(vcpu, vector)
    vcpu.exception_has_error = True
    vcpu.exception_error = error


def deliver(vcpu: Vcpu) -> None:
    """Hand over what is pending as far as the guest can take it; for the rest ask for an exit when it can.

    An exception goes before an interrupted external interrupt, and in place of any other interrupted event, which comes
    again when its instruction is executed again.
    """
    apic = vcpu.lapic
    if (apic.init or apic.startup) and not vcpu_startup.take(vcpu):
        return
    event_delivery.publish(vcpu)
    pv_eoi.sync(vcpu)
    board.advance(vcpu)
    serve_devices(vcpu)
    if apic.requests != 0 or vcpu.tpr_watched != 0:
        apic_bus.sync_tpr(vcpu)
    if vcpu.exception_pending:
        vcpu.exception_pending = False
        info: u32 = INFO_VALID | TYPE_EXCEPTION | vcpu.exception_vector
        if vcpu.exception_has_error:
            info |= INFO_ERROR_CODE
        backend.inject(vcpu, info, vcpu.exception_error)
        if vcpu.reinject & TYPE_MASK != TYPE_INTERRUPT:
            vcpu.reinject = 0
    elif vcpu.reinject != 0:
        backend.inject(vcpu, vcpu.reinject, vcpu.reinject_error)
        vcpu.reinject = 0
    if apic.nmi:
        deliver_nmi(vcpu)
    deliver_interrupt(vcpu)
    if apic.requests != 0 or vcpu.tpr_watched != 0:
        apic_bus.watch_tpr(vcpu)


def deliver_nmi(vcpu: Vcpu) -> None:
    """The NMI that waits, if the guest takes it now, else a window."""
    if backend.can_inject_nmi(vcpu):
        vcpu.lapic.nmi = False
        vcpu.deaf = False
        backend.inject(vcpu, INFO_VALID | TYPE_NMI | NMI_VECTOR, 0)
    backend.request_nmi_window(vcpu, vcpu.lapic.nmi)


def serve_devices(vcpu: Vcpu) -> None:
    """Queues of virtio devices that wait for memory: only a vCPU can wait."""
    vm = vcpu.vm
    assert vm is not None
    devices = vm.devices
    if devices is not None and devices.hungry:
        service.feed(vcpu, vm, devices)


def deliver_interrupt(vcpu: Vcpu) -> None:
    """The external interrupt of the highest priority, if the guest takes one now; a window if one stays pending."""
    waits = interrupt_pending(vcpu)
    if waits and backend.can_inject(vcpu):
        backend.inject(vcpu, INFO_VALID | TYPE_INTERRUPT | take_interrupt(vcpu), 0)
        waits = interrupt_pending(vcpu)
    elif waits and backend.behind_sti(vcpu):
        interrupt_shadow.renew(vcpu)
    backend.request_window(vcpu, waits)


def interrupt_pending(vcpu: Vcpu) -> bool:
    """Does an external interrupt wait?"""
    return vcpu.reinject != 0 or vcpu.event_interrupt or board.interrupt_pending(vcpu)


def wakes(vcpu: Vcpu) -> bool:
    """Does something wait that ends a HLT?"""
    apic = vcpu.lapic
    return apic.nmi or apic.init or vcpu.pending_events != 0 or (not vcpu.deaf and interrupt_pending(vcpu))


def take_interrupt(vcpu: Vcpu) -> u32:
    """Its vector; it is pending no more."""
    if vcpu.reinject != 0:
        vector: u32 = vcpu.reinject & 0xFF
        vcpu.reinject = 0
        return vector
    taken = board.take_interrupt(vcpu)
    if taken != board.NO_INTERRUPT:
        return taken
    vcpu.event_interrupt = False
    return vcpu.event_vector
