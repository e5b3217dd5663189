"""VMX and SVM instructions, RDPRU: a guest has none of them (no nesting, and CPUID says so)."""
from hypervisor import inject
from hypervisor.arch_x86.defs.cr import UD
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import Vcpu


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """#UD, as on a CPU without them."""
    inject.exception(vcpu, UD)
    return Outcome.RESUME
