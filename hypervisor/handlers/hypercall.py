"""VMMCALL, VMCALL: the hypercalls of hypervisor/abi.py, and KVM's for stock systems (hypercalls/kvm.py). Each is restartable: it pins guest memory first, then acts."""
from typing import Final

from hypervisor.abi import HYPERCALL_BASE, HYPERCALL_COUNT, Error
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.hypercalls import console, control, kvm, memory, time
from hypervisor.hypercalls.answer import error
from hypervisor.lang import u64, wrap_u64
from hypervisor.model import Vcpu

CALLS: Final = (  # in the order of abi.Hypercall
    control.version, console.write, console.read, time.time, time.timer_set, control.events_setup, control.yield_cpu,
    control.block, control.wake, control.power_off, control.crash, control.reboot,
    memory.mem_release, memory.mem_populate, memory.set_page_state)


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """One call: the number in RAX, the result there too; NO_SUCH_CALL, or NOT_PERMITTED outside CPL 0."""
    number: u64 = wrap_u64(vcpu.regs.rax - HYPERCALL_BASE)
    if number >= HYPERCALL_COUNT:
        return other_call(vcpu)
    if backend.cpl(vcpu) != 0:
        return error(vcpu, Error.NOT_PERMITTED)
    return CALLS[number](vcpu)


def other_call(vcpu: Vcpu) -> Outcome:
    """A number that is not ours: a stock system's is KVM's."""
    vm = vcpu.vm
    assert vm is not None
    return kvm.handle(vcpu) if vm.platform is not None else error(vcpu, Error.NO_SUCH_CALL)
