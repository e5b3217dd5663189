"""The vendor seam: everything that the rest of the hypervisor asks of hardware virtualization.

Chosen once at boot by detect(); each function branches on that one bool. The names of the vendors' structures occur
only below svm/ and vtx/.
"""
from typing import Final

from hypervisor.arch_x86.state import GuestState
from hypervisor.arch_x86.svm import check as svm_check
from hypervisor.arch_x86.svm import decode as svm_decode
from hypervisor.arch_x86.svm import init as svm_init
from hypervisor.arch_x86.svm import inject as svm_inject
from hypervisor.arch_x86.svm import state as svm_state
from hypervisor.arch_x86.svm import vcpu as svm_vcpu
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.lang import struct, u32, u64
from hypervisor.model import Cpu, Vcpu, Vm
from hypervisor.status import Status


@struct
class Chosen:
    """Which vendor; written once."""

    svm: bool
    name: str


chosen: Final = Chosen()


def detect() -> Status:
    """Find hardware virtualization. NOT_FOUND: none; UNSUPPORTED: some, but a part that is needed is missing (said)."""
    status = svm_init.detect()
    if status == Status.OK:
        chosen.svm = True
        chosen.name = "svm"
    return status


def init_cpu(cpu: Cpu) -> Status:
    """Switch virtualization on at this CPU."""
    return svm_init.init_cpu(cpu)


def create_vcpu(vm: Vm, vcpu: Vcpu) -> Status:
    """Make the hardware's structure of a vCPU; the nested tables of `vm` exist. NO_MEMORY is possible."""
    return svm_vcpu.create(vm, vcpu)


def destroy_vcpu(vm: Vm, vcpu: Vcpu) -> None:
    """Give it back. The vCPU is current on no CPU (see leave)."""
    svm_vcpu.destroy(vm, vcpu)


def switch_to(cpu: Cpu, vm: Vm, vcpu: Vcpu) -> None:
    """Make `vcpu` the one that enter runs. What the hardware does not switch is vcpu_switch's task."""
    svm_vcpu.switch_to(cpu, vm, vcpu)


def enter(cpu: Cpu, vcpu: Vcpu) -> None:
    """Run the guest until it exits."""
    svm_vcpu.enter(cpu, vcpu)


def decode(vcpu: Vcpu, exit: VmExit) -> None:
    """Say in vendor-free terms why it exited."""
    svm_decode.decode(vcpu, exit)


def skip(vcpu: Vcpu, exit: VmExit) -> None:
    """Move RIP behind the instruction that exited and end its interrupt shadow."""
    svm_vcpu.skip(vcpu, exit)


def read_state(vcpu: Vcpu, state: GuestState) -> None:
    """Copy the whole architectural state out (slow); also regs.cr2."""
    svm_state.read_state(vcpu, state)


def write_state(vcpu: Vcpu, state: GuestState) -> None:
    """Copy the whole architectural state in (slow), with regs.cr2; drops the guest's translations."""
    svm_state.write_state(vcpu, state)
    svm_vcpu.flush(vcpu)


def set_cr2(vcpu: Vcpu, value: u64) -> None:
    """CR2, before a #PF is injected."""
    svm_vcpu.set_cr2(vcpu, value)


def inject(vcpu: Vcpu, info: u32, error: u32) -> None:
    """Deliver an event at the next entry; `info` in the format of VT-x's interruption information, valid bit set."""
    svm_inject.inject(vcpu, info, error)


def can_inject(vcpu: Vcpu) -> bool:
    """Would the guest take an external interrupt now?"""
    return svm_inject.can_inject(vcpu)


def request_window(vcpu: Vcpu, wanted: bool) -> None:
    """Exit with INTERRUPT_WINDOW once the guest would take one; or no longer."""
    svm_inject.request_window(vcpu, wanted)


def flush(cpu: Cpu, vcpu: Vcpu) -> None:
    """Drop this vCPU's translations before its next entry."""
    svm_vcpu.flush(vcpu)


def refused_field(vcpu: Vcpu) -> str:
    """After ENTRY_FAILURE: which field the hardware refused, and why; empty when it cannot be told."""
    return svm_check.latest.field
