"""A vCPU on VT-x: its VMCS, the switch to it, entry and flush. Source: Intel SDM vol. 3C 25, 27, 30.3 (INVEPT, INVVPID)."""
from typing import Annotated, Final

from hypervisor import lock
from hypervisor.addresses import Hpa, hva_of
from hypervisor.arch_x86.defs.cr import AC, CR0_CD, CR0_NE, CR0_NW, DB, DR6_BS, DR6_INIT, MC
from hypervisor.arch_x86.defs.msr import CSTAR, EFER, IA32_PAT, KERNEL_GS_BASE, LSTAR, SFMASK, STAR
from hypervisor.arch_x86.intrinsics import (invept, invvpid, load_u16, load_u64, rdmsr, read_cr0, read_cr2, read_cr3, read_cr4, read_cs,
                                            read_dr6, read_tr, sgdt, sidt, store_u32, vmclear, vmread, vmwrite, vtx_enter, write_cr2,
                                            write_dr6, wrmsr)
from hypervisor.arch_x86.code_key import CodeKey
from hypervisor.arch_x86.state import CS, DS
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.arch_x86.vtx import controls, vmcs
from hypervisor.arch_x86.vtx.current import here, load, unload, use
from hypervisor.cpu import this_cpu
from hypervisor.lang import address, array, link_address, u8, u32, u64, wrap_u64
from hypervisor.memory import frames
from hypervisor.model import MAX_VCPUS_PER_VM, Cpu, Vcpu, Vm
from hypervisor.status import Status

EPTP_WRITE_BACK: Final[u64] = 6
EPTP_WALK_4: Final[u64] = 3 << 3
EPTP_ACCESSED_DIRTY: Final[u64] = 1 << 6

INVEPT_TYPE_SINGLE: Final = 1
INVVPID_TYPE_SINGLE: Final = 1

RIGHTS_DPL_SHIFT: Final = 5
FRAMES: Final = 2  # the VMCS and the virtual-APIC page
PLE_GAP_TICKS: Final = 128  # TSC: PAUSEs closer together are of one loop
PLE_WINDOW_TICKS: Final = 4096  # a loop that lasts longer exits
VPID_LAST: Final = 0xFFFF  # 0 is the host's, so the last vCPU of the last VM would have none
NO_VMCS: Final[u64] = 0xFFFFFFFFFFFFFFFF
# #DB and #AC: delivery of either can loop inside the CPU for ever, with no interrupt taken; #MC is the host's.
EXCEPTIONS: Final = (1 << DB) | (1 << AC) | (1 << MC)

# Bits that are not the guest's to change: it reads them from the shadow, and a change exits.
CR0_HOST_BITS: Final[u64] = CR0_NE | CR0_NW | CR0_CD
# CR4 bits that a guest changes without an exit: VME to OSXMMEXCPT, UMIP, FSGSBASE, SMEP, SMAP. OSXSAVE exits, because
# CPUID shows it, and so do features that CPUID hides: PCIDE, PKE, VMXE ...
CR4_GUEST_BITS: Final[u64] = 0x310FFF


def create(vm: Vm, vcpu: Vcpu) -> Status:
    """A VMCS for a vCPU of `vm`, whose nested tables exist; its state is still to be written. NO_MEMORY; QUOTA: there is no VPID for it."""
    if vm.id * MAX_VCPUS_PER_VM + vcpu.index >= VPID_LAST:
        return Status.QUOTA
    page = frames.alloc_zeroed()
    if page == 0:
        return Status.NO_MEMORY
    virtual_apic = frames.alloc_zeroed()
    if virtual_apic == 0:
        frames.free(page)
        return Status.NO_MEMORY
    vm.overhead_frames += FRAMES
    store_u32(hva_of(page), u32(here.revision))
    vcpu.backend_hpa = page
    vcpu.backend_hva = hva_of(page)
    vcpu.launched = False
    vcpu.asid = vm.id * MAX_VCPUS_PER_VM + vcpu.index + 1  # the VPID: nobody shares one
    vcpu.dr6 = DR6_INIT
    vmclear(page)
    load(this_cpu(), vcpu)
    write_controls(vcpu, vm)
    vmwrite(vmcs.VIRTUAL_APIC_PAGE, virtual_apic)
    write_host_state()
    return Status.OK


def destroy(vm: Vm, vcpu: Vcpu) -> None:
    """Give its frames back. The vCPU runs nowhere."""
    if vcpu.backend_hpa == 0:
        return
    cpu = this_cpu()
    if cpu.msr_owner == vcpu:
        cpu.msr_owner = None
    use(vcpu)
    frames.free(Hpa(vmread(vmcs.VIRTUAL_APIC_PAGE)))
    unload(cpu)
    frames.free(vcpu.backend_hpa)
    vm.overhead_frames -= FRAMES
    vcpu.backend_hpa = Hpa(0)


def write_controls(vcpu: Vcpu, vm: Vm) -> None:
    """Control fields of the current VMCS (25.6, 25.7, 25.8)."""
    words = controls.chosen.words
    vmwrite(vmcs.PIN_CONTROLS, words[controls.PIN])
    vmwrite(vmcs.PROCESSOR_CONTROLS, words[controls.PROCESSOR])
    vmwrite(vmcs.SECONDARY_CONTROLS, secondary_controls(vm))
    vmwrite(vmcs.EXIT_CONTROLS, words[controls.EXIT])
    vmwrite(vmcs.ENTRY_CONTROLS, words[controls.ENTRY])
    vmwrite(vmcs.EXCEPTION_BITMAP, EXCEPTIONS)
    vmwrite(vmcs.PAGE_FAULT_ERROR_MASK, 0)
    vmwrite(vmcs.PAGE_FAULT_ERROR_MATCH, 0)
    vmwrite(vmcs.CR3_TARGET_COUNT, 0)
    vmwrite(vmcs.TPR_THRESHOLD, 0)  # CR8 is the guest's own: in the virtual-APIC page; see inject.watch_cr8
    vmwrite(vmcs.EXIT_MSR_STORE_COUNT, 0)
    vmwrite(vmcs.EXIT_MSR_LOAD_COUNT, 0)
    vmwrite(vmcs.ENTRY_MSR_LOAD_COUNT, 0)
    vmwrite(vmcs.ENTRY_INTERRUPTION_INFO, 0)
    vmwrite(vmcs.MSR_BITMAP, here.msr_bitmap)
    vmwrite(vmcs.EPT_POINTER, ept_pointer(vm))
    vmwrite(vmcs.VPID, vcpu.asid)
    vmwrite(vmcs.VMCS_LINK_POINTER, NO_VMCS)
    vmwrite(vmcs.PREEMPTION_TIMER, here.preemption_ticks)
    vmwrite(vmcs.CR0_MASK, CR0_HOST_BITS)
    vmwrite(vmcs.CR4_MASK, 0xFFFFFFFFFFFFFFFF ^ CR4_GUEST_BITS)
    if words[controls.SECONDARY] & controls.SECONDARY_XSAVES != 0:
        vmwrite(vmcs.XSS_EXITING_BITMAP, 0)
    vmwrite(vmcs.GUEST_ACTIVITY, 0)
    vmwrite(vmcs.GUEST_INTERRUPTIBILITY, 0)
    vmwrite(vmcs.GUEST_PENDING_DEBUG, 0)
    vmwrite(vmcs.GUEST_DEBUGCTL, 0)


def secondary_controls(vm: Vm) -> u64:
    """Loops of PAUSE are noticed (25.6.13) where there is a sibling that the vCPU may wait for."""
    words = controls.chosen.words
    if words[controls.SECONDARY] & controls.SECONDARY_PAUSE_LOOP == 0:
        return words[controls.SECONDARY]
    if vm.vcpu_count == 1:
        return words[controls.SECONDARY] & ~controls.SECONDARY_PAUSE_LOOP
    vmwrite(vmcs.PLE_GAP, PLE_GAP_TICKS)
    vmwrite(vmcs.PLE_WINDOW, PLE_WINDOW_TICKS)
    return words[controls.SECONDARY]


def write_host_state() -> None:
    """Where and how the hypervisor goes on after an exit (25.5); HOST_RSP is written at each entry by enter.S."""
    table: Annotated[list[u8], 16] = array(u8, 16)
    place = address(table)
    vmwrite(vmcs.HOST_CR0, read_cr0())
    vmwrite(vmcs.HOST_CR3, read_cr3())
    vmwrite(vmcs.HOST_CR4, read_cr4())
    vmwrite(vmcs.HOST_CS_SELECTOR, read_cs())
    vmwrite(vmcs.HOST_SS_SELECTOR, 0)
    vmwrite(vmcs.HOST_DS_SELECTOR, 0)
    vmwrite(vmcs.HOST_ES_SELECTOR, 0)
    vmwrite(vmcs.HOST_FS_SELECTOR, 0)
    vmwrite(vmcs.HOST_GS_SELECTOR, 0)
    vmwrite(vmcs.HOST_FS_BASE, 0)
    vmwrite(vmcs.HOST_GS_BASE, 0)
    sidt(place)
    vmwrite(vmcs.HOST_IDTR_BASE, load_u64(place + 2))
    vmwrite(vmcs.HOST_TR_SELECTOR, read_tr())
    write_host_tables()
    vmwrite(vmcs.HOST_SYSENTER_CS, 0)
    vmwrite(vmcs.HOST_SYSENTER_ESP, 0)
    vmwrite(vmcs.HOST_SYSENTER_EIP, 0)
    vmwrite(vmcs.HOST_PAT, rdmsr(IA32_PAT))
    vmwrite(vmcs.HOST_EFER, rdmsr(EFER))
    vmwrite(vmcs.HOST_RIP, link_address("vtx_exited"))


def write_host_tables() -> None:
    """What of the host state is this CPU's own."""
    table: Annotated[list[u8], 16] = array(u8, 16)
    sgdt(address(table))
    gdt = load_u64(address(table) + 2)
    vmwrite(vmcs.HOST_GDTR_BASE, gdt)
    vmwrite(vmcs.HOST_TR_BASE, descriptor_base(gdt + read_tr()))


def descriptor_base(place: u64) -> u64:
    """Base of the 16-byte TSS descriptor at this address (SDM vol. 3A 8.2.3)."""
    low = load_u64(place)
    base = ((low >> 16) & 0xFFFFFF) | ((low >> 32) & 0xFF000000)
    return base | ((load_u64(place + 8) & 0xFFFFFFFF) << 32)


def ept_pointer(vm: Vm) -> u64:
    """25.6.11: write-back, four levels, accessed and dirty bits on."""
    return vm.nested_root | EPTP_WRITE_BACK | EPTP_WALK_4 | EPTP_ACCESSED_DIRTY


def flush(vcpu: Vcpu) -> None:
    """Drop what this CPU, on which it is current, has of its VM's nested tables: guest frames, and linear addresses of all its
    vCPUs (INVEPT, 30.3)."""
    vm = vcpu.vm
    assert vm is not None
    invept(INVEPT_TYPE_SINGLE, ept_pointer(vm), 0)


def flush_linear(vcpu: Vcpu) -> None:
    """Drop its linear addresses (INVVPID, 30.3): on this CPU now, on each other when it comes there. It runs on no other."""
    if vcpu.cpu != this_cpu():
        vcpu.cpu = None
    invvpid(INVVPID_TYPE_SINGLE, vcpu.asid, 0)


def migrate(vcpu: Vcpu) -> None:
    """This CPU is another than before: its tables are those to go on with after an exit, and its old translations are stale."""
    use(vcpu)
    write_host_tables()
    flush(vcpu)


def leave(cpu: Cpu, vcpu: Vcpu) -> None:
    """Write its MSRs and its VMCS back to memory."""
    if cpu.msr_owner == vcpu:
        save_msrs(vcpu)
        cpu.msr_owner = None
    if cpu.loaded == vcpu:
        unload(cpu)


def park(cpu: Cpu) -> None:
    """No VMCS stays active."""
    unload(cpu)


def switch_to(cpu: Cpu, vm: Vm, vcpu: Vcpu) -> None:
    """Make `vcpu` the one that enter runs next: its VMCS, switched MSRs, DR6 and CR2 into this CPU."""
    use(vcpu)
    vmwrite(vmcs.TSC_OFFSET, vm.tsc_offset)
    if cpu.msr_owner != vcpu:
        load_msrs(vcpu)
        cpu.msr_owner = vcpu


def save_msrs(vcpu: Vcpu) -> None:
    """From the CPU, which must hold this vCPU's."""
    vcpu.star = rdmsr(STAR)
    vcpu.lstar = rdmsr(LSTAR)
    vcpu.cstar = rdmsr(CSTAR)
    vcpu.sfmask = rdmsr(SFMASK)
    vcpu.kernel_gs_base = rdmsr(KERNEL_GS_BASE)
    vcpu.dr6 = read_dr6()
    vcpu.regs.cr2 = read_cr2()


def load_msrs(vcpu: Vcpu) -> None:
    """Into the CPU."""
    wrmsr(STAR, vcpu.star)
    wrmsr(LSTAR, vcpu.lstar)
    wrmsr(CSTAR, vcpu.cstar)
    wrmsr(SFMASK, vcpu.sfmask)
    wrmsr(KERNEL_GS_BASE, vcpu.kernel_gs_base)
    write_dr6(vcpu.dr6)
    write_cr2(vcpu.regs.cr2)


def enter(cpu: Cpu, vcpu: Vcpu) -> None:
    """Run the guest until the next VM exit, without the lock. Interrupts are masked here and afterwards. decode tells a failed entry."""
    use(vcpu)  # no other VMCS stays active here when the lock is free
    lock.release()
    vcpu.exit.raw_reason = vtx_enter(address(vcpu.regs), vcpu.launched)
    lock.acquire()
    vcpu.launched = True


def skip(vcpu: Vcpu, exit: VmExit) -> None:
    """Step over the instruction that exited; the shadow of an STI or MOV SS before it ends. The VMCS is current."""
    vcpu.regs.rip = wrap_u64(vcpu.regs.rip + exit.length)
    blocked = vmread(vmcs.GUEST_INTERRUPTIBILITY)
    if blocked & vmcs.BLOCKED_BY_SHADOW != 0:
        vmwrite(vmcs.GUEST_INTERRUPTIBILITY, blocked & ~vmcs.BLOCKED_BY_SHADOW)


def set_cr2(vcpu: Vcpu, value: u64) -> None:
    """CR2, before a #PF is injected."""
    vcpu.regs.cr2 = value
    if this_cpu().msr_owner == vcpu:
        write_cr2(value)


def note_single_step(vcpu: Vcpu) -> None:
    """DR6.BS, before its #DB is injected; what waited in the shadow of a MOV SS before the instruction is this #DB."""
    use(vcpu)
    vmwrite(vmcs.GUEST_PENDING_DEBUG, 0)
    vcpu.dr6 = vcpu.dr6 | DR6_BS
    if this_cpu().msr_owner == vcpu:
        vcpu.dr6 = read_dr6() | DR6_BS
        write_dr6(vcpu.dr6)


def rflags(vcpu: Vcpu) -> u64:
    """The guest's RFLAGS."""
    use(vcpu)
    return vmread(vmcs.GUEST_RFLAGS)


def cpl(vcpu: Vcpu) -> u64:
    """Privilege level of the guest's code: the DPL of SS (25.4.1)."""
    use(vcpu)
    return (vmread(vmcs.GUEST_SS_RIGHTS) >> RIGHTS_DPL_SHIFT) & 3


def cr4(vcpu: Vcpu) -> u64:
    """The guest's CR4: its own bits from the register, the others as it wrote them."""
    use(vcpu)
    return (vmread(vmcs.GUEST_CR4) & CR4_GUEST_BITS) | (vmread(vmcs.CR4_SHADOW) & ~CR4_GUEST_BITS)


def code_key(vcpu: Vcpu, to: CodeKey) -> None:
    """What the meaning of the bytes at RIP depends on."""
    use(vcpu)
    to.cr0 = vmread(vmcs.GUEST_CR0)
    to.cr3 = vmread(vmcs.GUEST_CR3)
    to.cr4 = vmread(vmcs.GUEST_CR4)
    to.efer = vmread(vmcs.GUEST_EFER)
    to.code_base = vmread(vmcs.GUEST_ES_BASE + CS * vmcs.SEGMENT_STRIDE)
    to.data_base = vmread(vmcs.GUEST_ES_BASE + DS * vmcs.SEGMENT_STRIDE)
    to.code_attributes = u32(vmread(vmcs.GUEST_ES_RIGHTS + CS * vmcs.SEGMENT_STRIDE))


def has_code_key(vcpu: Vcpu, key: CodeKey) -> bool:
    """Whether it is the same now."""
    use(vcpu)
    return (vmread(vmcs.GUEST_CR3) == key.cr3 and vmread(vmcs.GUEST_CR0) == key.cr0 and vmread(vmcs.GUEST_CR4) == key.cr4
            and vmread(vmcs.GUEST_EFER) == key.efer
            and vmread(vmcs.GUEST_ES_RIGHTS + CS * vmcs.SEGMENT_STRIDE) == key.code_attributes
            and vmread(vmcs.GUEST_ES_BASE + CS * vmcs.SEGMENT_STRIDE) == key.code_base
            and vmread(vmcs.GUEST_ES_BASE + DS * vmcs.SEGMENT_STRIDE) == key.data_base)
