"""Showing raised events to a PV guest: bits in its VcpuInfo, then one interrupt (which inject.py brings in)."""
from hypervisor.abi import VcpuInfo
from hypervisor.cpu import owe
from hypervisor.lang import offsetof, sizeof, u64
from hypervisor.memory import guest_memory, guest_window
from hypervisor.model import WORK_INJECT, WORK_RESCHED, Vcpu, VcpuState
from hypervisor.status import Status


def publish(vcpu: Vcpu) -> bool:
    """Move vcpu.pending_events into the guest's VcpuInfo. True: vcpu.event_vector is to be injected (then clear event_interrupt).

    Call it with the vCPU current, for WORK_INJECT. False with events left: the page was not there; it is tried again.
    """
    vm = vcpu.vm
    assert vm is not None
    if vcpu.pending_events == 0 or not vcpu.info_valid:
        return vcpu.event_interrupt
    status = guest_memory.pin(vcpu, vcpu.info_gpa, sizeof(VcpuInfo), True)
    if status == Status.OK:
        info = guest_memory.host_address(vm, vcpu.info_gpa)
        guest_window.store_u64(info + offsetof(VcpuInfo, "pressure_frames"), vm.pressure_frames)
        guest_window.or_u64(info + offsetof(VcpuInfo, "pending"), vcpu.pending_events)
        vcpu.pending_events = 0
        vcpu.event_interrupt = True
    else:
        owe(WORK_INJECT if vcpu.state == VcpuState.RUNNABLE else WORK_RESCHED)
    return vcpu.event_interrupt


def unseen(vcpu: Vcpu) -> u64:
    """Events that the guest has not taken yet; vcpu.info_gpa is pinned where it is registered."""
    vm = vcpu.vm
    assert vm is not None
    if not vcpu.info_valid:
        return vcpu.pending_events
    info = guest_memory.host_address(vm, vcpu.info_gpa)
    if info == 0:  # the guest has released the page that it registered
        return vcpu.pending_events
    return vcpu.pending_events | guest_window.load_u64(info + offsetof(VcpuInfo, "pending"))
