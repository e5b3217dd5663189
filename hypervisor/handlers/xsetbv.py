"""XSETBV, where the hardware intercepts it: XCR0 may hold what the vCPU switch saves, in the combinations that exist."""
from hypervisor import inject
from hypervisor.arch_x86 import extended_state
from hypervisor.arch_x86.defs.cr import GP
from hypervisor.arch_x86.intrinsics import xsetbv
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import u64
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Set it in the CPU, where this vCPU's states are now. The hardware has checked CPL and CR4.OSXSAVE."""
    regs = vcpu.regs
    value: u64 = (regs.rdx << 32) | (regs.rax & 0xFFFFFFFF)
    if regs.rcx & 0xFFFFFFFF != 0 or not extended_state.allowed(value):
        inject.exception_with_error(vcpu, GP, 0)
        return Outcome.RESUME
    xsetbv(0, value)
    return Outcome.SKIP
