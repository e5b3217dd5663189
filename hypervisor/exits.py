"""From an exit's cause to its handler, and from the handler's answer to what happens with the vCPU."""
from typing import Final

from hypervisor import inject, vm
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.defs.cr import DB, RFLAGS_TF
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.cpu import owe
from hypervisor.handlers import (cpuid, cr_access, dr_access, entry_failure, exception, hlt, hypercall, interrupt,
                                 interrupt_window, invlpg, io, monitor_mwait, nested_fault, nmi, pause, rdmsr, rdpmc, rdtsc, triple_fault,
                                 unknown, virtualization, wbinvd, wrmsr, xsetbv)
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import apart
from hypervisor.model import WORK_INJECT, WORK_RESCHED, Vcpu, VcpuState
from hypervisor.sched.wake import sleep

# In the order of vm_exit.Cause.
HANDLERS: Final = (
    interrupt.handle, nmi.handle, interrupt_window.handle, cpuid.handle, hypercall.handle, io.handle, rdmsr.handle,
    wrmsr.handle, hlt.handle, nested_fault.handle, cr_access.handle, dr_access.handle, xsetbv.handle, exception.handle,
    triple_fault.handle, rdtsc.handle, invlpg.handle, pause.handle, monitor_mwait.handle, virtualization.handle,
    wbinvd.handle, entry_failure.handle, unknown.handle, rdpmc.handle)


def dispatch(vcpu: Vcpu, exit: VmExit) -> None:
    """Run the handler of a fresh exit, or of one that had to WAIT."""
    vcpu.exits[exit.cause] += 1
    outcome = HANDLERS[exit.cause](vcpu, exit)
    if outcome != Outcome.SKIP and outcome != Outcome.RESUME:
        leave(vcpu, outcome)
    if outcome == Outcome.SKIP or outcome == Outcome.BLOCK:
        skip(vcpu, exit)
    elif backend.behind_sti(vcpu):
        owe(WORK_INJECT)  # an interrupt may wait for the end of the shadow (interrupt_shadow.py)


def skip(vcpu: Vcpu, exit: VmExit) -> None:
    """Go on behind the instruction; when single-stepping, its trap is due."""
    backend.skip(vcpu, exit)
    if backend.rflags(vcpu) & RFLAGS_TF != 0:
        backend.note_single_step(vcpu)
        inject.exception(vcpu, DB)


@apart
def leave(vcpu: Vcpu, outcome: Outcome) -> None:
    """The vCPU does not simply run on."""
    if outcome == Outcome.BLOCK:
        if not inject.wakes(vcpu):
            sleep(vcpu, VcpuState.BLOCKED)
    elif outcome == Outcome.WAIT:
        vcpu.restart = True
        owe(WORK_INJECT if vcpu.state == VcpuState.RUNNABLE else WORK_RESCHED)
    else:
        owner = vcpu.vm
        assert owner is not None
        vm.stopped(owner)
