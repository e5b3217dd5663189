"""HLT: the vCPU sleeps until an event. A stock system all of whose vCPUs halt with interrupts off has ended: nothing can wake it."""
from hypervisor import apic_bus, board, pv_eoi
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.defs.cr import RFLAGS_IF
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import address
from hypervisor.model import Vcpu, VcpuState, Vm


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Goes on behind the HLT; at once if another vCPU has kicked it (hypercalls/kvm.py)."""
    vm = vcpu.vm
    assert vm is not None
    if vcpu.kept.kicked:
        vcpu.kept.kicked = False
        return Outcome.SKIP
    pv_eoi.sync(vcpu)
    apic_bus.sync_tpr(vcpu)  # who sends an interrupt while it sleeps goes by what the local APIC says
    if vm.platform is not None:
        vcpu.deaf = backend.rflags(vcpu) & RFLAGS_IF == 0
        if vcpu.deaf and is_last(vm, vcpu):
            return board.end(vm, 0, "halted")
    return Outcome.BLOCK


def is_last(vm: Vm, vcpu: Vcpu) -> bool:
    """Whether all other vCPUs have halted with interrupts off too, or have never run, and no NMI or INIT is on its way."""
    for member in vm.vcpus:
        if member is None:
            continue
        if member.lapic.nmi or member.lapic.init:
            return False
        asleep = member.state == VcpuState.PARKED or (member.state == VcpuState.BLOCKED and member.deaf)
        if not asleep and address(member) != address(vcpu):
            return False
    return True
