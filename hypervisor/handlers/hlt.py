"""HLT: the vCPU sleeps until an event. A stock system that halts with interrupts off has ended: nothing can wake it."""
from hypervisor import board
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.defs.cr import RFLAGS_IF
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Goes on behind the HLT; at once if another vCPU has kicked it (hypercalls/kvm.py)."""
    vm = vcpu.vm
    assert vm is not None
    if vcpu.kicked:
        vcpu.kicked = False
        return Outcome.SKIP
    if vm.platform is not None and backend.rflags(vcpu) & RFLAGS_IF == 0:
        return board.end(vm, 0, "halted")
    return Outcome.BLOCK
