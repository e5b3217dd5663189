"""Loader of Linux by PVH entry: an ELF64 file that names a 32-bit entry in a note, with initial file system and command line.

Xen, docs/misc/pvh.pandoc ("x86/HVM direct boot ABI") and xen/include/public/arch-x86/hvm/start_info.h; the note is
XEN_ELFNOTE_PHYS32_ENTRY of xen/include/public/elfnote.h. File and initial file system come from the bundle and are not trusted.

| guest-physical | what |
|---|---|
| 9000 | hvm_start_info, list of modules, memory map, command line |
| E0000 | ACPI tables |
| where the file's segments say, from 1 MiB up | kernel |
| top of memory | initial file system |
"""
from typing import Annotated, Final

from hypervisor.abi import VmConfig
from hypervisor.addresses import PAGE_SIZE, Gpa, Hva, hva_of
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.defs.cr import CR0_ET, CR0_PE, DR6_INIT, DR7_INIT, PAT_INIT
from hypervisor.arch_x86.state import GuestState
from hypervisor.boot_info import PVH_MAGIC, HvmModule, HvmStartInfo
from hypervisor.bundle import Member
from hypervisor.lang import address, clear, copy, offsetof, sizeof, struct, u8, u32, u64
from hypervisor.loaders import acpi_tables
from hypervisor.loaders.elf64 import Loaded, NoteWord, find_note, load_segments
from hypervisor.loaders.long_mode import set_segments_32
from hypervisor.memory import guest_memory
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status

NOTE_XEN: Final[u32] = 0x006E6558  # "Xen"
NOTE_PHYS32_ENTRY: Final = 18
INFO: Final[u64] = 0x9000
LOW_MEMORY_END: Final[u64] = 0x9FC00  # where a PC has its extended BIOS data area
HIGH_MEMORY: Final[u64] = 0x100000
VERSION: Final = 1
RANGES: Final = 4
RANGE_RAM: Final = 1
RANGE_RESERVED: Final = 2
SELECTOR_CODE: Final = 0x10
SELECTOR_DATA: Final = 0x18


@struct
class MemoryMapEntry:
    """hvm_memmap_table_entry."""

    address: u64
    size: u64
    type: u32
    reserved: u32


@struct
class Area:
    """All that the kernel finds, as it lies in the guest's memory."""

    info: HvmStartInfo
    module: HvmModule
    map: Annotated[list[MemoryMapEntry], 4]
    cmdline: Annotated[list[u8], 1024]


staged: Final = Area()


def load(vm: Vm, config: VmConfig, kernel: Member, initrd: Member) -> Status:
    """Load, and set the first vCPU's state. An initrd of size 0: none.

    BAD_ARGUMENT: not an ELF64 file; UNSUPPORTED: it has no PVH entry; BAD_ADDRESS: the VM's memory is too small.
    """
    assert sizeof(HvmStartInfo) == 56 and sizeof(MemoryMapEntry) == 24
    loaded = Loaded()
    entry = NoteWord()
    file = hva_of(kernel.hpa)
    status = load_segments(vm, file, kernel.size, loaded)
    if status != Status.OK:
        return status
    if not find_note(file, kernel.size, NOTE_XEN, NOTE_PHYS32_ENTRY, entry):
        return Status.UNSUPPORTED
    if loaded.start < HIGH_MEMORY or not loaded.start <= entry.value < loaded.end:
        return Status.BAD_ADDRESS
    if initrd.size > vm.memory_bytes - loaded.end:
        return Status.BAD_ADDRESS
    place: u64 = (vm.memory_bytes - initrd.size) & ~u64(PAGE_SIZE - 1)
    if place < loaded.end:
        return Status.BAD_ADDRESS
    if initrd.size != 0:
        status = guest_memory.load_image(vm, Gpa(place), hva_of(initrd.hpa), initrd.size)
    if status == Status.OK:
        status = acpi_tables.write(vm)
    if status == Status.OK:
        status = write_info(vm, config, place, initrd.size)
    if status == Status.OK:
        first = vm.vcpus[0]
        assert first is not None
        set_entry_state(first, entry.value)
    return status


def write_info(vm: Vm, config: VmConfig, initrd: u64, initrd_size: u64) -> Status:
    """hvm_start_info and all that it points to."""
    clear(staged)
    info = staged.info
    info.magic = PVH_MAGIC
    info.version = VERSION
    info.cmdline_paddr = INFO + offsetof(Area, "cmdline")
    info.rsdp_paddr = acpi_tables.AREA
    info.memmap_paddr = INFO + offsetof(Area, "map")
    info.memmap_entries = RANGES
    if initrd_size != 0:
        info.nr_modules = 1
        info.modlist_paddr = INFO + offsetof(Area, "module")
        staged.module.paddr = initrd
        staged.module.size = initrd_size
    copy(staged.cmdline, config.cmdline)
    set_range(0, 0, LOW_MEMORY_END, RANGE_RAM)
    set_range(1, LOW_MEMORY_END, 0xA0000, RANGE_RESERVED)
    set_range(2, acpi_tables.AREA, HIGH_MEMORY, RANGE_RESERVED)
    set_range(3, HIGH_MEMORY, vm.memory_bytes, RANGE_RAM)
    return guest_memory.load_image(vm, Gpa(INFO), Hva(address(staged)), sizeof(Area))


def set_range(index: u32, start: u64, end: u64, kind: u32) -> None:
    """One line of the memory map."""
    entry = staged.map[index]
    entry.address = start
    entry.size = end - start
    entry.type = kind


def set_entry_state(vcpu: Vcpu, entry: u64) -> None:
    """32-bit protected mode without paging, flat segments, interrupts off, EBX at hvm_start_info."""
    vcpu.regs.rip = entry
    vcpu.regs.rbx = INFO
    state = GuestState()
    state.cr0 = CR0_PE | CR0_ET
    state.dr6 = DR6_INIT
    state.dr7 = DR7_INIT
    state.pat = PAT_INIT
    set_segments_32(state, SELECTOR_CODE, SELECTOR_DATA)
    backend.write_state(vcpu, state)
