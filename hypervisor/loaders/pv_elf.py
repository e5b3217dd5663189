"""Loader of PV kernels: an ELF64 file at its physical addresses, started in 64-bit mode as abi.StartInfo says.

ELF-64 Object File Format 1.5, chapters 3 and 6. The file comes from the bundle and is not trusted: each offset is checked
against the file, each address against the VM's memory.

Behind the kernel, page-aligned: StartInfo (one page), then PML4, PDPT and page directory that map the first GiB to itself.
"""
from typing import Annotated, Final

from hypervisor import clock
from hypervisor.abi import ABI_VERSION, START_INFO_MAGIC, StartInfo, VmConfig
from hypervisor.addresses import PAGE_SIZE, Gpa, Hva
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.defs.cr import (CR0_ET, CR0_MP, CR0_NE, CR0_PE, CR0_PG, CR0_WP, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_PAE,
                                         DR6_INIT, DR7_INIT, EFER_LMA, EFER_LME, EFER_NXE, PAT_INIT)
from hypervisor.arch_x86.state import GuestState
from hypervisor.lang import address, at, clear, copy, sizeof, struct, u8, u16, u32, u64
from hypervisor.loaders.long_mode import set_segments
from hypervisor.memory import guest_memory
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status

ELF_MAGIC: Final[u32] = 0x464C457F
EM_X86_64: Final = 62
ET_EXEC: Final = 2
PT_LOAD: Final = 1
SEGMENTS_MOST: Final = 16

PTE_P_W: Final[u64] = 3
PTE_P_W_PS: Final[u64] = 0x83
LARGE_PAGES: Final = 512

SELECTOR_CODE: Final = 8
SELECTOR_DATA: Final = 16


@struct
class ElfHeader:
    """Elf64_Ehdr."""

    magic: u32
    ident: Annotated[list[u8], 12]
    type: u16
    machine: u16
    version: u32
    entry: u64
    program_offset: u64
    section_offset: u64
    flags: u32
    header_size: u16
    program_entry_size: u16
    program_count: u16
    section_entry_size: u16
    section_count: u16
    section_names: u16


@struct
class ProgramHeader:
    """Elf64_Phdr."""

    type: u32
    flags: u32
    offset: u64
    virtual_address: u64
    physical_address: u64
    file_size: u64
    memory_size: u64
    align: u64


@struct
class Loaded:
    """What the next steps need."""

    entry: u64
    end: u64  # first gpa behind the kernel


@struct
class Word:
    """A number with an address."""

    value: u64


staged: Final = StartInfo()


def load(vm: Vm, config: VmConfig, file: Hva, size: u64) -> Status:
    """Load, and set all vCPUs' state: those above the first start when they are woken (Hypercall.WAKE). BAD_ARGUMENT: not an ELF file for us; BAD_ADDRESS: beyond the VM's memory."""
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
    for vcpu in vm.vcpus:
        if vcpu is not None:
            vcpu.regs.rip = loaded.entry
            vcpu.regs.rdi = info
            vcpu.regs.rsi = vcpu.index
            set_long_mode(vcpu, tables)
    return Status.OK


def load_segments(vm: Vm, file: Hva, size: u64, loaded: Loaded) -> Status:
    """Copy what the program headers name."""
    header = ElfHeader()
    if size < sizeof(ElfHeader):
        return Status.BAD_ARGUMENT
    copy(header, at(ElfHeader, file))
    if header.magic != ELF_MAGIC or header.machine != EM_X86_64 or header.type != ET_EXEC or header.ident[0] != 2:
        return Status.BAD_ARGUMENT
    table_size: u64 = header.program_count * sizeof(ProgramHeader)
    if (header.program_entry_size != sizeof(ProgramHeader) or header.program_count > SEGMENTS_MOST
            or header.program_offset > size or table_size > size - header.program_offset):
        return Status.BAD_ARGUMENT
    for i in range(header.program_count):
        segment = at(ProgramHeader, Hva(file + header.program_offset + i * sizeof(ProgramHeader)))
        if segment.type == PT_LOAD and segment.memory_size != 0:
            status = load_segment(vm, file, size, segment, loaded)
            if status != Status.OK:
                return status
    loaded.entry = header.entry
    return Status.OK if loaded.end != 0 else Status.BAD_ARGUMENT


def load_segment(vm: Vm, file: Hva, size: u64, segment: ProgramHeader, loaded: Loaded) -> Status:
    """One of them; the rest of its memory is zero already, as all fresh memory."""
    if segment.offset > size or segment.file_size > size - segment.offset or segment.file_size > segment.memory_size:
        return Status.BAD_ARGUMENT
    gpa = Gpa(segment.physical_address)
    if not guest_memory.in_ram(vm, gpa, segment.memory_size):
        return Status.BAD_ADDRESS
    if gpa + segment.memory_size > loaded.end:
        loaded.end = gpa + segment.memory_size
    return guest_memory.load_image(vm, gpa, Hva(file + segment.offset), segment.file_size)


def write_tables(vm: Vm, tables: Gpa) -> Status:
    """PML4, PDPT and a page directory of 2 MiB pages."""
    status = put_u64(vm, tables, (tables + PAGE_SIZE) | PTE_P_W)
    if status == Status.OK:
        status = put_u64(vm, Gpa(tables + PAGE_SIZE), (tables + 2 * PAGE_SIZE) | PTE_P_W)
    for i in range(LARGE_PAGES):
        if status == Status.OK:
            status = put_u64(vm, Gpa(tables + 2 * PAGE_SIZE + i * 8), (u64(i) << 21) | PTE_P_W_PS)
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
