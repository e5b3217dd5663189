"""Nested page fault (SVM #VMEXIT_NPF, VT-x EPT violation): the guest touched a guest-physical page that is not mapped."""
from __future__ import annotations

from hypervisor.abi import VM_KIND_PV
from hypervisor.addresses import PAGE_SHIFT, Gfn
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.console import say
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import u64
from hypervisor.memory import backing
from hypervisor.model import Vcpu
from hypervisor.status import Status


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """RAM is backed with a zeroed frame and the instruction runs again; anything else is a hole."""
    vm = vcpu.vm
    assert vm is not None
    status = backing.back_for(vcpu, vm, Gfn(exit.gpa >> PAGE_SHIFT))
    if status == Status.OK:
        return Outcome.RESUME
    if status == Status.WAIT:
        return Outcome.WAIT
    return Outcome.STOP
