"""VT-x on this CPU: present, unlocked, sufficient; then VMXON. Source: Intel SDM vol. 3C 24.6-24.8, vol. 3D appendix A."""
from typing import Annotated, Final

from hypervisor import phase
from hypervisor.addresses import PAGE_SIZE, Hpa, hva_of
from hypervisor.arch_x86.defs.msr import (CSTAR, FS_BASE, GS_BASE, IA32_FEATURE_CONTROL, IA32_PAT, IA32_SYSENTER_CS,
                                          IA32_SYSENTER_EIP, IA32_SYSENTER_ESP, KERNEL_GS_BASE, LSTAR, SFMASK, STAR)
from hypervisor.arch_x86.intrinsics import (cpuid, fill_memory, invept, invvpid, load_u8, rdmsr, read_cr0, read_cr4, store_u8,
                                            store_u32, vmxon, write_cr0, write_cr4, wrmsr)
from hypervisor.arch_x86.vtx import controls
from hypervisor.arch_x86.vtx.current import here
from hypervisor.clock import ticks_of
from hypervisor.console import say
from hypervisor.lang import address, array, u8, u32, u64
from hypervisor.memory import frames
from hypervisor.memory.nested_walk import entry_format
from hypervisor.model import Cpu
from hypervisor.status import Status

CPUID_1_ECX_VMX: Final = 1 << 5

FEATURE_CONTROL_LOCK: Final = 1 << 0
FEATURE_CONTROL_VMX_OUTSIDE_SMX: Final = 1 << 2

IA32_VMX_BASIC: Final = 0x480
IA32_VMX_MISC: Final = 0x485
IA32_VMX_CR0_FIXED0: Final = 0x486
IA32_VMX_CR0_FIXED1: Final = 0x487
IA32_VMX_CR4_FIXED0: Final = 0x488
IA32_VMX_CR4_FIXED1: Final = 0x489
IA32_VMX_EPT_VPID_CAP: Final = 0x48C

BASIC_REVISION: Final = 0x7FFFFFFF
MISC_TIMER_RATE: Final = 0x1F  # the preemption timer counts TSC bit n

# A.10
EPT_WALK_4: Final[u64] = 1 << 6
EPT_WRITE_BACK: Final[u64] = 1 << 14
EPT_ACCESSED_DIRTY: Final[u64] = 1 << 21
INVEPT_SUPPORTED: Final[u64] = 1 << 20
INVEPT_SINGLE: Final[u64] = 1 << 25
INVEPT_ALL: Final[u64] = 1 << 26
INVVPID_SUPPORTED: Final[u64] = 1 << 32
INVVPID_SINGLE: Final[u64] = 1 << 41
INVVPID_ALL: Final[u64] = 1 << 42

NEEDED_COUNT: Final = 9
NEEDED: Final[Annotated[list[u64], NEEDED_COUNT]] = [
    EPT_WALK_4, EPT_WRITE_BACK, EPT_ACCESSED_DIRTY, INVEPT_SUPPORTED, INVEPT_SINGLE, INVEPT_ALL, INVVPID_SUPPORTED,
    INVVPID_SINGLE, INVVPID_ALL]
NEEDED_NAME: Final[Annotated[list[str], NEEDED_COUNT]] = [
    "EPT walk of 4 levels", "EPT memory type write-back", "EPT accessed and dirty bits", "INVEPT", "INVEPT single-context",
    "INVEPT all-context", "INVVPID", "INVVPID single-context", "INVVPID all-context"]

# 29.3.2
EPT_READ: Final[u64] = 1 << 0
EPT_WRITE: Final[u64] = 1 << 1
EPT_EXECUTE: Final[u64] = 1 << 2
EPT_TYPE_WRITE_BACK: Final[u64] = 6 << 3
EPT_IGNORE_PAT: Final[u64] = 1 << 6
EPT_LARGE: Final[u64] = 1 << 7
EPT_ACCESSED: Final[u64] = 1 << 8
EPT_DIRTY: Final[u64] = 1 << 9

INVEPT_TYPE_ALL: Final = 2
INVVPID_TYPE_ALL: Final = 2

# MSRs that a guest reads and writes without an exit: the VMCS or the vCPU switch keeps them.
OPEN_COUNT: Final = 11
OPEN_MSR: Final[Annotated[list[u32], OPEN_COUNT]] = [
    IA32_SYSENTER_CS, IA32_SYSENTER_ESP, IA32_SYSENTER_EIP, IA32_PAT, STAR, LSTAR, CSTAR, SFMASK, FS_BASE, GS_BASE,
    KERNEL_GS_BASE]
MSR_BITMAP_WRITES: Final = 2048  # offset of the write half
MSR_BITMAP_HIGH: Final = 1024  # offset of C0000000-C0001FFF within each half


def detect() -> Status:
    """NOT_FOUND: not a CPU with VMX. UNSUPPORTED: VMX without something needed, which is said by name."""
    registers: Annotated[list[u32], 4] = array(u32, 4)
    cpuid(1, 0, address(registers))
    if registers[2] & CPUID_1_ECX_VMX == 0:
        return Status.NOT_FOUND
    control = rdmsr(IA32_FEATURE_CONTROL)
    if control & FEATURE_CONTROL_LOCK != 0 and control & FEATURE_CONTROL_VMX_OUTSIDE_SMX == 0:
        say(f"vtx: the firmware has locked VMX off (IA32_FEATURE_CONTROL {control:#x})")
        return Status.UNSUPPORTED
    status = controls.choose_all()
    if check_ept() != Status.OK:
        status = Status.UNSUPPORTED
    if status == Status.OK:
        phase.found("virtual", f"VT-x revision {rdmsr(IA32_VMX_BASIC) & BASIC_REVISION}, EPT and VPID {rdmsr(IA32_VMX_EPT_VPID_CAP):#x}")
    return status


def check_ept() -> Status:
    """Each EPT and VPID capability that Krait relies on; names what is missing."""
    have = rdmsr(IA32_VMX_EPT_VPID_CAP)
    result = Status.OK
    for i in range(NEEDED_COUNT):
        if have & NEEDED[i] == 0:
            say(f"vtx: the CPU lacks {NEEDED_NAME[i]}")
            result = Status.UNSUPPORTED
    return result


def open_msr(bitmap: u64, msr: u32) -> None:
    """Let guests read and write `msr` directly (25.6.9)."""
    place = bitmap + ((msr & 0x1FFF) >> 3)
    if msr >= 0xC0000000:
        place = place + MSR_BITMAP_HIGH
    keep = u8(0xFF ^ (u32(1) << (msr & 7)))
    store_u8(place, u8(load_u8(place) & keep))
    store_u8(place + MSR_BITMAP_WRITES, u8(load_u8(place + MSR_BITMAP_WRITES) & keep))


def make_msr_bitmap(bitmap: u64) -> None:
    """Every MSR exits but those that the VMCS or the vCPU switch keeps."""
    fill_memory(bitmap, 0xFF, PAGE_SIZE)
    for i in range(OPEN_COUNT):
        open_msr(bitmap, OPEN_MSR[i])


def set_entry_format() -> None:
    """How EPT entries look to the nested walker (29.3.2, tables 29-1 to 29-6)."""
    entry_format.present_mask = EPT_READ | EPT_WRITE | EPT_EXECUTE
    entry_format.table_bits = EPT_READ | EPT_WRITE | EPT_EXECUTE
    entry_format.leaf_bits = EPT_READ | EPT_TYPE_WRITE_BACK | EPT_IGNORE_PAT
    entry_format.write_bit = EPT_WRITE
    entry_format.execute_bit = EPT_EXECUTE
    entry_format.not_execute_bit = 0
    entry_format.large_bit = EPT_LARGE
    entry_format.accessed_bit = EPT_ACCESSED
    entry_format.dirty_bit = EPT_DIRTY


def enter_vmx_operation(cpu: Cpu) -> Status:
    """CR0 and CR4 as VMX demands (A.7, A.8), then VMXON with a region of its own."""
    control = rdmsr(IA32_FEATURE_CONTROL)
    if control & FEATURE_CONTROL_LOCK == 0:
        wrmsr(IA32_FEATURE_CONTROL, control | FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX_OUTSIDE_SMX)
    write_cr0((read_cr0() | rdmsr(IA32_VMX_CR0_FIXED0)) & rdmsr(IA32_VMX_CR0_FIXED1))
    write_cr4((read_cr4() | rdmsr(IA32_VMX_CR4_FIXED0)) & rdmsr(IA32_VMX_CR4_FIXED1))
    region = frames.alloc_zeroed()
    if region == 0:
        return Status.NO_MEMORY
    store_u32(hva_of(region), u32(here.revision))
    cpu.vendor_hva = hva_of(region)
    if not vmxon(region):
        say("vtx: VMXON failed")
        return Status.UNSUPPORTED
    invept(INVEPT_TYPE_ALL, 0, 0)
    invvpid(INVVPID_TYPE_ALL, 0, 0)
    return Status.OK


def init_cpu(cpu: Cpu) -> Status:
    """Turn VMX on at this CPU; the first call also makes what all VMs share. NO_MEMORY is possible."""
    here.revision = rdmsr(IA32_VMX_BASIC) & BASIC_REVISION
    status = enter_vmx_operation(cpu)
    if status != Status.OK:
        return status
    if here.msr_bitmap == 0:
        here.msr_bitmap = frames.alloc_zeroed()
        if here.msr_bitmap == 0:
            return Status.NO_MEMORY
        make_msr_bitmap(hva_of(here.msr_bitmap))
    set_entry_format()
    rate = rdmsr(IA32_VMX_MISC) & MISC_TIMER_RATE
    here.preemption_ticks = (ticks_of(1000000) >> (rate & 31)) + 1
    return Status.OK
