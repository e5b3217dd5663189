"""RDMSR of a register that is not passed through."""
from hypervisor import inject, msrs
from hypervisor.arch_x86.defs.cr import GP
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import u32
from hypervisor.model import Vcpu
from hypervisor.msrs import MsrValue


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """EDX:EAX, or #GP if the guest has none of this number."""
    found = MsrValue()
    if not msrs.read(vcpu, u32(vcpu.regs.rcx), found):
        msrs.count_refused(vcpu, "RDMSR")
        inject.exception_with_error(vcpu, GP, 0)
        return Outcome.RESUME
    vcpu.regs.rax = found.value & 0xFFFFFFFF
    vcpu.regs.rdx = found.value >> 32
    return Outcome.SKIP
