"""WRMSR to a register that is not passed through."""
from hypervisor import inject, msrs
from hypervisor.arch_x86.defs.cr import GP
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import u32, u64
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Take EDX:EAX, or #GP if the guest has none of this number or the value is not allowed."""
    value: u64 = (vcpu.regs.rdx << 32) | (vcpu.regs.rax & 0xFFFFFFFF)
    if not msrs.write(vcpu, u32(vcpu.regs.rcx), value):
        inject.exception_with_error(vcpu, GP, 0)
        return Outcome.RESUME
    return Outcome.SKIP
