"""An exit came while an event was being delivered: the event is delivered again, by inject.deliver."""
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.cpu import owe
from hypervisor.model import WORK_INJECT, Vcpu


def deliver_again(vcpu: Vcpu, exit: VmExit) -> None:
    """Take exit.idt_vectoring, which is not 0, over into the vCPU's pending events."""
    vcpu.reinject = exit.idt_vectoring
    vcpu.reinject_error = exit.idt_vectoring_error
    exit.idt_vectoring = 0
    owe(WORK_INJECT)
