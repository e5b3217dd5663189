"""Loader of PV kernels: an ELF64 file at its physical addresses, started in 64-bit mode as abi.StartInfo says.

Behind the kernel, page-aligned: StartInfo (one page), then PML4, PDPT and page directory that map the first GiB to itself.
"""
from typing import Final

from hypervisor import clock
from hypervisor.abi import ABI_VERSION, START_INFO_MAGIC, StartInfo, VmConfig
from hypervisor.addresses import PAGE_SIZE, Gpa, Hva
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.defs.cr import (CR0_ET, CR0_MP, CR0_NE, CR0_PE, CR0_PG, CR0_WP, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_PAE,
                                         DR6_INIT, DR7_INIT, EFER_LMA, EFER_LME, EFER_NXE, PAT_INIT)
from hypervisor.arch_x86.state import GuestState
from hypervisor.lang import address, clear, copy, sizeof, struct, u32, u64
from hypervisor.loaders.elf64 import Loaded, load_segments
from hypervisor.loaders.long_mode import set_segments
from hypervisor.memory import guest_memory, guest_window
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status

PTE_P_W: Final[u64] = 3
PTE_P_W_PS: Final[u64] = 0x83
LARGE_PAGES: Final = 512
VCPUS_A_PIECE: Final = 16  # whose state is set at a time

SELECTOR_CODE: Final = 8
SELECTOR_DATA: Final = 16


@struct
class Word:
    """A number with an address."""

    value: u64


@struct
class Beginning:
    """Where the vCPUs of the VM that was loaded last begin."""

    entry: u64
    info: Gpa
    tables: Gpa
    set: u32  # vCPUs that have their state


staged: Final = StartInfo()
beginning: Final = Beginning()


def load(vm: Vm, config: VmConfig, file: Hva, size: u64) -> Status:
    """Load, and set all vCPUs' state, which set_some does if the VM is loaded in pieces. BAD_ARGUMENT: not an ELF file for us; BAD_ADDRESS:
    beyond the VM's memory."""
    loaded = Loaded()
    status = load_segments(vm, file, size, loaded)
    if status != Status.OK:
        return status
    info = Gpa((loaded.end + PAGE_SIZE - 1) & ~u64(PAGE_SIZE - 1))
    tables = Gpa(info + PAGE_SIZE)
    status = write_tables(vm, tables)
    if status == Status.OK:
        status = write_start_info(vm, config, info, tables + 3 * PAGE_SIZE)
    if status != Status.OK:
        return status
    beginning.entry = loaded.entry
    beginning.info = info
    beginning.tables = tables
    beginning.set = 0
    if guest_memory.loading.vm is None:
        while not set_some(vm):
            pass
    return Status.OK


def set_some(vm: Vm) -> bool:
    """Give some vCPUs the state in which they begin; True: all have it. Those above the first start when they are woken (Hypercall.WAKE)."""
    end: u32 = min(beginning.set + VCPUS_A_PIECE, vm.vcpu_count)
    while beginning.set < end:
        vcpu = vm.vcpus[beginning.set]
        assert vcpu is not None
        vcpu.regs.rip = beginning.entry
        vcpu.regs.rdi = beginning.info
        vcpu.regs.rsi = vcpu.index
        set_long_mode(vcpu, beginning.tables)
        beginning.set += 1
    return end == vm.vcpu_count


def write_tables(vm: Vm, tables: Gpa) -> Status:
    """PML4, PDPT and a page directory of 2 MiB pages."""
    status = put_u64(vm, tables, (tables + PAGE_SIZE) | PTE_P_W)
    if status == Status.OK:
        status = put_u64(vm, Gpa(tables + PAGE_SIZE), (tables + 2 * PAGE_SIZE) | PTE_P_W)
    if status == Status.OK:
        status = put_u64(vm, Gpa(tables + 2 * PAGE_SIZE), PTE_P_W_PS)  # the page has its frame now
    if status == Status.OK:
        directory = guest_memory.host_address(vm, Gpa(tables + 2 * PAGE_SIZE))
        for i in range(1, LARGE_PAGES):
            guest_window.store_u64(Hva(directory + i * 8), (u64(i) << 21) | PTE_P_W_PS)
    return status


def put_u64(vm: Vm, gpa: Gpa, value: u64) -> Status:
    """One number."""
    word = Word()
    word.value = value
    return guest_memory.load_image(vm, gpa, Hva(address(word)), 8)


def write_start_info(vm: Vm, config: VmConfig, place: Gpa, image_end: u64) -> Status:
    """What the kernel finds at the address in RDI."""
    clear(staged)
    staged.magic = START_INFO_MAGIC
    staged.version = ABI_VERSION
    staged.vm_id = vm.id
    staged.memory_bytes = vm.memory_bytes
    staged.vcpu_count = vm.vcpu_count
    staged.svm = 1 if backend.chosen.svm else 0
    staged.tsc_khz = clock.tsc_khz()
    staged.image_end = image_end
    copy(staged.cmdline, config.cmdline)
    return guest_memory.load_image(vm, place, Hva(address(staged)), sizeof(StartInfo))


def set_long_mode(vcpu: Vcpu, tables: Gpa) -> None:
    """64-bit mode, interrupts off, flat segments, no IDT."""
    state = GuestState()
    state.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG
    state.cr3 = tables
    state.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT
    state.efer = EFER_LME | EFER_LMA | EFER_NXE
    state.dr6 = DR6_INIT
    state.dr7 = DR7_INIT
    state.pat = PAT_INIT
    set_segments(state, SELECTOR_CODE, SELECTOR_DATA)
    backend.write_state(vcpu, state)
