"""A host interrupt ended the guest's time (SVM: it is still pending; VT-x: the exit has acknowledged it), or its slice is over."""
from hypervisor.arch_x86 import host_interrupts
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.cpu import this_cpu
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Let it in; its handler leaves work for the run loop."""
    if exit.vector != 0:
        host_interrupts.handle(this_cpu(), exit.vector)
        exit.vector = 0
    else:
        host_interrupts.poll(this_cpu())
    return Outcome.RESUME
