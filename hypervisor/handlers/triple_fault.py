"""Shutdown: an exception while #DF was being delivered. A PC would reset; here the VM is stopped, with the reason visible.

A stock system that emptied its IDT before (Linux, reboot=t) wanted the reset.
"""
from hypervisor import crash, reboot
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.state import GuestState
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Stop this VM."""
    vm = vcpu.vm
    assert vm is not None
    if vm.platform is not None:
        state = GuestState()
        backend.read_state(vcpu, state)
        if state.idtr_limit == 0:
            return reboot.ask(vm, "a triple fault")
    crash.stop(vcpu, exit, "triple fault")
    return Outcome.STOP
