"""RDPMC: a guest has no performance counters (CPUID leaf 0xA, PerfCtrExtCore), so no counter number is valid."""
from hypervisor import inject
from hypervisor.arch_x86.defs.cr import GP
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """#GP(0), as on a CPU whose ECX names no counter."""
    inject.exception_with_error(vcpu, GP, 0)
    return Outcome.RESUME
