"""The vendor seam: everything that the rest of the hypervisor asks of hardware virtualization.

Chosen once at boot by detect(); each function branches on that one bool. The names of the vendors' structures occur
only below svm/ and vtx/.
"""
from typing import Final

from hypervisor.arch_x86.code_key import CodeKey
from hypervisor.arch_x86.redelivery import deliver_again
from hypervisor.arch_x86.state import GuestState
from hypervisor.arch_x86.svm import check as svm_check
from hypervisor.arch_x86.svm import decode as svm_decode
from hypervisor.arch_x86.svm import init as svm_init
from hypervisor.arch_x86.svm import inject as svm_inject
from hypervisor.arch_x86.svm import nmi as svm_nmi
from hypervisor.arch_x86.svm import state as svm_state
from hypervisor.arch_x86.svm import vcpu as svm_vcpu
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.arch_x86.vtx import current as vtx_current
from hypervisor.arch_x86.vtx import decode as vtx_decode
from hypervisor.arch_x86.vtx import failure as vtx_failure
from hypervisor.arch_x86.vtx import init as vtx_init
from hypervisor.arch_x86.vtx import inject as vtx_inject
from hypervisor.arch_x86.vtx import state as vtx_state
from hypervisor.arch_x86.vtx import vcpu as vtx_vcpu
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
    elif status == Status.NOT_FOUND:
        status = vtx_init.detect()
        if status == Status.OK:
            chosen.name = "vtx"
    return status


def init_cpu(cpu: Cpu) -> Status:
    """Switch virtualization on at this CPU."""
    if chosen.svm:
        return svm_init.init_cpu(cpu)
    return vtx_init.init_cpu(cpu)


def create_vcpu(vm: Vm, vcpu: Vcpu) -> Status:
    """Make the hardware's structure of a vCPU; the nested tables of `vm` exist. NO_MEMORY; QUOTA: no tag is left for its translations."""
    if chosen.svm:
        return svm_vcpu.create(vm, vcpu)
    return vtx_vcpu.create(vm, vcpu)


def destroy_vcpu(vm: Vm, vcpu: Vcpu) -> None:
    """Give it back. The vCPU is current on no CPU (see leave)."""
    if chosen.svm:
        svm_vcpu.destroy(vm, vcpu)
    else:
        vtx_vcpu.destroy(vm, vcpu)


def migrate(cpu: Cpu, vcpu: Vcpu) -> None:
    """`vcpu` comes to this CPU from another, or for the first time: nothing that this CPU may have kept of it is good any more."""
    if chosen.svm:
        svm_vcpu.migrate(vcpu)
    else:
        vtx_vcpu.migrate(vcpu)


def leave(cpu: Cpu, vcpu: Vcpu) -> None:
    """Write back what this CPU holds of `vcpu`, which does not run here on: another CPU may switch to it."""
    if not chosen.svm:
        vtx_vcpu.leave(cpu, vcpu)


def park(cpu: Cpu) -> None:
    """The CPU goes idle: it keeps no vCPU's structure to itself."""
    if not chosen.svm:
        vtx_vcpu.park(cpu)


def switch_to(cpu: Cpu, vm: Vm, vcpu: Vcpu) -> None:
    """Make `vcpu` the one that enter runs. What the hardware does not switch is vcpu_switch's task."""
    if chosen.svm:
        svm_vcpu.switch_to(cpu, vm, vcpu)
    else:
        vtx_vcpu.switch_to(cpu, vm, vcpu)


def make_current(vcpu: Vcpu) -> None:
    """Before an exit is handled again: on VT-x its VMCS may have been another one's turn since."""
    if not chosen.svm:
        vtx_current.use(vcpu)


def enter(cpu: Cpu, vcpu: Vcpu) -> None:
    """Run the guest until it exits."""
    if chosen.svm:
        svm_vcpu.enter(cpu, vcpu)
    else:
        vtx_vcpu.enter(cpu, vcpu)


def decode(vcpu: Vcpu, exit: VmExit) -> None:
    """Say in vendor-free terms why it exited."""
    if chosen.svm:
        svm_decode.decode(vcpu, exit)
    else:
        vtx_decode.decode(vcpu, exit)
        if exit.idt_vectoring != 0:
            deliver_again(vcpu, exit)


def fill_raw(vcpu: Vcpu, exit: VmExit) -> None:
    """For dumps: the hardware's own account of the latest exit, which decode leaves out on its frequent paths."""
    if chosen.svm:
        svm_decode.fill_raw(vcpu, exit)
    else:
        vtx_decode.fill_raw(vcpu, exit)


def skip(vcpu: Vcpu, exit: VmExit) -> None:
    """Move RIP behind the instruction that exited and end its interrupt shadow."""
    if chosen.svm:
        svm_vcpu.skip(vcpu, exit)
    else:
        vtx_vcpu.skip(vcpu, exit)


def cpl(vcpu: Vcpu) -> u64:
    """Privilege level of the guest's code, 0..3."""
    if chosen.svm:
        return svm_vcpu.cpl(vcpu)
    return vtx_vcpu.cpl(vcpu)


def cr4(vcpu: Vcpu) -> u64:
    """The guest's CR4."""
    if chosen.svm:
        return svm_vcpu.cr4(vcpu)
    return vtx_vcpu.cr4(vcpu)


def rflags(vcpu: Vcpu) -> u64:
    """The guest's RFLAGS; cheap, where regs.rflags is good only after read_state."""
    if chosen.svm:
        return svm_vcpu.rflags(vcpu)
    return vtx_vcpu.rflags(vcpu)


def read_state(vcpu: Vcpu, state: GuestState) -> None:
    """Copy the whole architectural state out (slow); also regs.rsp, regs.rflags and regs.cr2, which are good only then."""
    if chosen.svm:
        svm_state.read_state(vcpu, state)
    else:
        vtx_state.read_state(vcpu, state)


def write_state(vcpu: Vcpu, state: GuestState) -> None:
    """Copy the whole architectural state in (slow), with the registers that read_state gives; drops the guest's translations.

    To change a part: read_state first, in the same exit.
    """
    if chosen.svm:
        svm_state.write_state(vcpu, state)
        svm_vcpu.flush(vcpu)
    else:
        vtx_state.write_state(vcpu, state)
        vtx_vcpu.flush_linear(vcpu)


def load_page_pointers(vcpu: Vcpu, vm: Vm, cr3: u64) -> bool:
    """A write of CR0 or CR4 under PAE paging loads the page-directory pointers anew; False: #GP, one has reserved bits set.

    VT-x alone: under SVM the CPU reads them when it walks (AMD APM vol. 2 rev. 3.42, 15.25.10).
    """
    return chosen.svm or vtx_state.load_pdptes(vcpu, vm, cr3)


def code_key(vcpu: Vcpu, to: CodeKey) -> None:
    """What the meaning of the bytes at RIP depends on. The vCPU is current."""
    if chosen.svm:
        svm_vcpu.code_key(vcpu, to)
    else:
        vtx_vcpu.code_key(vcpu, to)


def has_code_key(vcpu: Vcpu, key: CodeKey) -> bool:
    """Whether it is the same now."""
    if chosen.svm:
        return svm_vcpu.has_code_key(vcpu, key)
    return vtx_vcpu.has_code_key(vcpu, key)


def set_cr2(vcpu: Vcpu, value: u64) -> None:
    """CR2, before a #PF is injected."""
    if chosen.svm:
        svm_vcpu.set_cr2(vcpu, value)
    else:
        vtx_vcpu.set_cr2(vcpu, value)


def note_single_step(vcpu: Vcpu) -> None:
    """An instruction was carried out under RFLAGS.TF, and RIP is behind it: DR6.BS for the #DB that is to be injected."""
    if chosen.svm:
        svm_vcpu.note_single_step(vcpu)
    else:
        vtx_vcpu.note_single_step(vcpu)


def inject(vcpu: Vcpu, info: u32, error: u32) -> None:
    """Deliver an event at the next entry; `info` in the format of VT-x's interruption information, valid bit set. 0: none."""
    if chosen.svm:
        svm_inject.inject(vcpu, info, error)
    else:
        vtx_inject.inject(vcpu, info, error)


def can_inject(vcpu: Vcpu) -> bool:
    """Would the guest take an external interrupt now?"""
    if chosen.svm:
        return svm_inject.can_inject(vcpu)
    return vtx_inject.can_inject(vcpu)


def behind_sti(vcpu: Vcpu) -> bool:
    """Does the guest take no interrupt because of a shadow alone, which the next entry may lose (interrupt_shadow.py)?"""
    return chosen.svm and svm_inject.behind_sti(vcpu)


def before_sti(vcpu: Vcpu) -> None:
    """Interrupts off, no shadow: RIP is at an STI again. Only if behind_sti."""
    svm_inject.before_sti(vcpu)


def request_window(vcpu: Vcpu, wanted: bool) -> None:
    """Exit with INTERRUPT_WINDOW once the guest would take one; or no longer."""
    if chosen.svm:
        svm_inject.request_window(vcpu, wanted)
    else:
        vtx_inject.request_window(vcpu, wanted)


def drop_events(vcpu: Vcpu) -> None:
    """After INIT: nothing is injected, no NMI is being handled, nothing holds interrupts off for an instruction."""
    if chosen.svm:
        svm_nmi.drop_events(vcpu)
    else:
        vtx_inject.drop_events(vcpu)


def can_inject_nmi(vcpu: Vcpu) -> bool:
    """Would the guest take an NMI now?"""
    if chosen.svm:
        return svm_nmi.can_inject(vcpu)
    return vtx_inject.can_inject_nmi(vcpu)


def request_nmi_window(vcpu: Vcpu, wanted: bool) -> None:
    """Exit with INTERRUPT_WINDOW once the guest's NMI handler has returned; or no longer."""
    if chosen.svm:
        svm_nmi.request_window(vcpu, wanted)
    else:
        vtx_inject.request_nmi_window(vcpu, wanted)


def cr8(vcpu: Vcpu) -> u32:
    """The guest's CR8, 0..15. The vCPU is current."""
    if chosen.svm:
        return svm_inject.cr8(vcpu)
    return vtx_inject.cr8(vcpu)


def set_cr8(vcpu: Vcpu, value: u32) -> None:
    """Change it. The vCPU is current."""
    if chosen.svm:
        svm_inject.set_cr8(vcpu, value)
    else:
        vtx_inject.set_cr8(vcpu, value)


def watch_cr8(vcpu: Vcpu, below: u32) -> None:
    """Exit once the guest writes less than `below` to CR8, which is not below it now; 0: do not."""
    if chosen.svm:
        svm_inject.watch_cr8(vcpu, below)
    else:
        vtx_inject.watch_cr8(vcpu, below)


def flush(cpu: Cpu, vcpu: Vcpu) -> None:
    """Drop this vCPU's translations before its next entry."""
    if chosen.svm:
        svm_vcpu.flush(vcpu)
    else:
        vtx_vcpu.flush(vcpu)


def refused_field(vcpu: Vcpu) -> str:
    """After ENTRY_FAILURE: which field the hardware refused, and why; empty when it cannot be told."""
    if chosen.svm:
        return svm_check.why_refused(vcpu)
    return vtx_failure.latest.field
