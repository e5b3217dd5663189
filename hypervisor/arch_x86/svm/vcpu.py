"""A vCPU's VMCB: made, made current, entered, flushed (AMD APM vol. 2 rev. 3.42, 15.5, 15.16, 15.25)."""
from hypervisor import lock
from hypervisor.addresses import Hpa, hpa_of, hva_of
from hypervisor.arch_x86.code_key import CodeKey
from hypervisor.arch_x86.defs.cr import DR6_BS, PAT_INIT
from hypervisor.arch_x86.defs.svm import (NP_ENABLE, TLB_CONTROL_FLUSH_ALL, TLB_CONTROL_FLUSH_ASID,
                                          V_INTR_MASKING)
from hypervisor.arch_x86.intrinsics import svm_enter
from hypervisor.arch_x86.svm import check
from hypervisor.arch_x86.svm.controls import set_intercepts
from hypervisor.arch_x86.svm.init import host
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.build_options import DEBUG
from hypervisor.lang import address, at, u64, wrap_u64
from hypervisor.memory import frames
from hypervisor.memory.ledger import Use
from hypervisor.model import Cpu, Vcpu, Vm
from hypervisor.status import Status


def create(vm: Vm, vcpu: Vcpu) -> Status:
    """A VMCB for a vCPU of `vm`, whose nested tables exist; its state is still to be written. NO_MEMORY is possible."""
    page = frames.alloc_for(vm.id, Use.OTHER)
    if page == 0:
        return Status.NO_MEMORY
    frames.zero(page)
    vm.overhead_frames += 1
    vcpu.backend_hpa = page
    vcpu.backend_hva = hva_of(page)
    vmcb = at(Vmcb, vcpu.backend_hva)
    set_intercepts(vmcb)
    vmcb.iopm_base_pa = host.iopm_hpa
    vmcb.msrpm_base_pa = host.msrpm_hpa
    vmcb.v_intr = V_INTR_MASKING
    vmcb.np_enable = NP_ENABLE
    vmcb.g_pat = PAT_INIT
    return Status.OK


def destroy(vm: Vm, vcpu: Vcpu) -> None:
    """Give the VMCB back. The vCPU runs nowhere."""
    if vcpu.backend_hpa != 0:
        frames.free(vcpu.backend_hpa)
        vm.overhead_frames -= 1
        vcpu.backend_hpa = Hpa(0)


def migrate(vcpu: Vcpu) -> None:
    """It gets a new ASID where it goes."""
    vcpu.asid = 0


def switch_to(cpu: Cpu, vm: Vm, vcpu: Vcpu) -> None:
    """Make `vcpu` the one that enter runs next; gives it an ASID of the current generation."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    vmcb.n_cr3 = vm.nested_root
    vmcb.tsc_offset = vm.tsc_offset
    if vcpu.asid_generation != cpu.asid_generation or vcpu.asid == 0:
        if cpu.next_asid >= host.asid_count:
            cpu.asid_generation += 1
            cpu.next_asid = 1
        vcpu.asid = cpu.next_asid
        vcpu.asid_generation = cpu.asid_generation
        cpu.next_asid += 1
        flush(vcpu)  # another vCPU may have had this ASID in an earlier generation
    vmcb.guest_asid = vcpu.asid


def flush(vcpu: Vcpu) -> None:
    """Drop the guest's translations at the next entry."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    if vmcb.tlb_control != TLB_CONTROL_FLUSH_ALL:
        vmcb.tlb_control = TLB_CONTROL_FLUSH_ASID if host.flush_by_asid else TLB_CONTROL_FLUSH_ALL


def enter(cpu: Cpu, vcpu: Vcpu) -> None:
    """Run the guest until the next #VMEXIT, without the lock. Interrupts are masked here and afterwards."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    regs = vcpu.regs
    vmcb.rax = regs.rax
    vmcb.rip = regs.rip
    if DEBUG:
        check.remember(cpu, vmcb)
    lock.release()
    svm_enter(address(regs), vcpu.backend_hpa, hpa_of(cpu.vendor_hva))
    lock.acquire()
    after = at(Vmcb, vcpu.backend_hva)  # anew: what lives across the entry would take one of the two registers that do
    regs.rax = after.rax
    regs.rip = after.rip
    after.tlb_control = 0
    after.event_injection = 0


def skip(vcpu: Vcpu, exit: VmExit) -> None:
    """Step over the instruction that exited; an interrupt shadow ends with it."""
    vcpu.regs.rip = wrap_u64(vcpu.regs.rip + exit.length)
    at(Vmcb, vcpu.backend_hva).interrupt_shadow = 0


def cpl(vcpu: Vcpu) -> u64:
    """Privilege level of the guest's code."""
    return at(Vmcb, vcpu.backend_hva).cpl


def set_cr2(vcpu: Vcpu, value: u64) -> None:
    """CR2, before a #PF is injected."""
    at(Vmcb, vcpu.backend_hva).cr2 = value


def note_single_step(vcpu: Vcpu) -> None:
    """DR6.BS, before its #DB is injected."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    vmcb.dr6 = vmcb.dr6 | DR6_BS


def cr4(vcpu: Vcpu) -> u64:
    """The guest's CR4."""
    return at(Vmcb, vcpu.backend_hva).cr4


def rflags(vcpu: Vcpu) -> u64:
    """The guest's RFLAGS."""
    return at(Vmcb, vcpu.backend_hva).rflags


def code_key(vcpu: Vcpu, to: CodeKey) -> None:
    """What the meaning of the bytes at RIP depends on."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    to.cr0 = vmcb.cr0
    to.cr3 = vmcb.cr3
    to.cr4 = vmcb.cr4
    to.efer = vmcb.efer
    to.code_base = vmcb.cs.base
    to.data_base = vmcb.ds.base
    to.code_attributes = vmcb.cs.attributes


def has_code_key(vcpu: Vcpu, key: CodeKey) -> bool:
    """Whether it is the same now."""
    vmcb = at(Vmcb, vcpu.backend_hva)
    return (vmcb.cr3 == key.cr3 and vmcb.cr0 == key.cr0 and vmcb.cr4 == key.cr4 and vmcb.efer == key.efer
            and vmcb.cs.attributes == key.code_attributes and vmcb.cs.base == key.code_base and vmcb.ds.base == key.data_base)
