"""Loader of Multiboot 1 kernels: ELF32 files, or any file whose header names its addresses, with modules and command line.

Multiboot Specification 0.6.96, 3.1 (header), 3.2 (machine state), 3.3 (boot information). Kernel and modules come from the bundle
and are not trusted: each offset is checked against the file, each address against the VM's memory, from a copy.

| guest-physical | what |
|---|---|
| where the kernel says | kernel; not in A0000-FFFFF, where a PC has no memory |
| behind it, page by page | modules, in their order |
| 9000, or behind the modules if the kernel itself lies below 1 MiB | boot information, memory map, list of modules, their texts |
| E0000 | ACPI tables |
"""
from typing import Annotated, Final

from hypervisor import bundle
from hypervisor.abi import MODULE_TEXT_BYTES, MODULES_MOST, VmConfig
from hypervisor.addresses import PAGE_SIZE, Gpa, Hva, hva_of
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.defs.cr import CR0_ET, CR0_PE, DR6_INIT, DR7_INIT, PAT_INIT
from hypervisor.arch_x86.state import GuestState
from hypervisor.bundle import Member
from hypervisor.lang import address, at, clear, copy, offsetof, sizeof, struct, u8, u16, u32, u64
from hypervisor.loaders import acpi_tables, elf32
from hypervisor.loaders.long_mode import set_segments_32
from hypervisor.memory import guest_memory
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status

SEARCHED: Final = 8192  # 3.1.1: the header lies wholly in here, 4-byte aligned
HEADER_MAGIC: Final[u32] = 0x1BADB002
BOOTLOADER_MAGIC: Final[u64] = 0x2BADB002
HEADER_BYTES_LEAST: Final = 12  # magic, flags, checksum
FLAG_ADDRESSES: Final[u32] = 1 << 16
FLAGS_REQUIRED: Final[u32] = 0xFFFF  # 3.1.2: what is set in these and not understood, a loader must refuse
FLAGS_UNDERSTOOD: Final[u32] = 1 << 0 | 1 << 1  # modules on page boundaries, memory information: both always

INFO_MEMORY: Final = 1 << 0
INFO_COMMAND_LINE: Final = 1 << 2
INFO_MODULES: Final = 1 << 3
INFO_MEMORY_MAP: Final = 1 << 6
INFO_LOADER_NAME: Final = 1 << 9

MAP_ENTRIES: Final = 4
MAP_AVAILABLE: Final = 1
MAP_RESERVED: Final = 2
INFO_LOW: Final[u64] = 0x9000
LOW_MEMORY_END: Final[u64] = 0x9FC00  # where a PC has its extended BIOS data area
HIGH_MEMORY: Final[u64] = 0x100000
SELECTOR_CODE: Final = 8
SELECTOR_DATA: Final = 16
CMDLINE_BYTES: Final = 1024


@struct
class Header:
    """3.1.1, without the fields of the graphics mode."""

    magic: u32
    flags: u32
    checksum: u32
    header_address: u32
    load_address: u32
    load_end_address: u32
    bss_end_address: u32
    entry_address: u32


@struct
class Info:
    """3.3: the structure that EBX points to. What flags do not announce is zero."""

    flags: u32
    mem_lower: u32
    mem_upper: u32
    boot_device: u32
    cmdline: u32
    mods_count: u32
    mods_address: u32
    symbols: Annotated[list[u32], 4]
    mmap_length: u32
    mmap_address: u32
    drives_length: u32
    drives_address: u32
    config_table: u32
    boot_loader_name: u32
    apm_table: u32
    graphics: Annotated[list[u32], 11]


@struct(packed=True)
class MapEntry:
    """One line of the memory map; size does not count itself."""

    size: u32
    base: u64
    length: u64
    type: u32


@struct
class ModuleEntry:
    """Where a module lies; end is exclusive."""

    start: u32
    end: u32
    text: u32
    reserved: u32


@struct
class Area:
    """All that the kernel finds, as it lies in the guest's memory."""

    info: Info
    map: Annotated[list[MapEntry], 4]
    modules: Annotated[list[ModuleEntry], 8]
    loader_name: Annotated[list[u8], 8]
    cmdline: Annotated[list[u8], 1024]
    texts: Annotated[list[Annotated[list[u8], 128]], 8]


@struct
class Placement:
    """Where things go."""

    start: u64  # lowest gpa of the kernel
    end: u64  # first gpa behind what has been placed so far
    entry: u64


staged: Final = Area()
LOADER_NAME: Final[u64] = 0x7469_6172_4B  # "Krait"


def load(vm: Vm, config: VmConfig, kernel: Member) -> Status:
    """Load, and set the first vCPU's state.

    BAD_ARGUMENT: no Multiboot header, or a damaged file; BAD_ADDRESS: not in the VM's memory; UNSUPPORTED: the kernel demands a
    feature that is not there, or is no 32-bit file; NOT_FOUND: a module is not in the bundle.
    """
    assert sizeof(Info) == 116 and sizeof(MapEntry) == 24
    header = Header()
    place = Placement()
    file = hva_of(kernel.hpa)
    offset = find_header(file, kernel.size, header)
    if offset == SEARCHED:
        return Status.BAD_ARGUMENT
    if header.flags & FLAGS_REQUIRED & ~FLAGS_UNDERSTOOD != 0:
        return Status.UNSUPPORTED
    if header.flags & FLAG_ADDRESSES != 0:
        status = load_by_addresses(vm, file, kernel.size, offset, header, place)
    else:
        status = load_elf(vm, file, kernel.size, place)
    clear(staged)
    if status == Status.OK:
        status = load_modules(vm, config, place)
    if status == Status.OK:
        status = acpi_tables.write(vm)
    info: u64 = INFO_LOW if place.start >= HIGH_MEMORY else place.end
    if status == Status.OK:
        status = write_info(vm, config, info)
    if status == Status.OK:
        first = vm.vcpus[0]
        assert first is not None
        set_entry_state(first, place.entry, info)
    return status


def find_header(file: Hva, size: u64, header: Header) -> u64:
    """Its offset in the file, and a copy of it; SEARCHED: there is none."""
    limit: u64 = min(size, SEARCHED)
    offset: u64 = 0
    while offset + HEADER_BYTES_LEAST <= limit:
        place = at(Header, Hva(file + offset))
        if place.magic == HEADER_MAGIC and (u64(place.magic) + place.flags + place.checksum) & 0xFFFF_FFFF == 0:
            if offset + sizeof(Header) <= size:
                copy(header, place)
                return offset
            header.flags = place.flags
            return offset if header.flags & FLAG_ADDRESSES == 0 else SEARCHED
        offset += 4
    return SEARCHED


def is_memory(vm: Vm, start: u64, length: u64) -> bool:
    """Whether a PC with the VM's memory has memory there."""
    low: bool = start + length <= LOW_MEMORY_END
    return guest_memory.in_ram(vm, Gpa(start), length) and (low or start >= HIGH_MEMORY)


def load_by_addresses(vm: Vm, file: Hva, size: u64, offset: u64, header: Header, place: Placement) -> Status:
    """3.1.3: the header says what part of the file goes where; an end of 0: all of the file, and no bss."""
    if header.load_address > header.header_address or header.header_address - header.load_address > offset:
        return Status.BAD_ARGUMENT
    first: u64 = offset - (header.header_address - header.load_address)
    length: u64 = size - first
    if header.load_end_address != 0:
        if header.load_end_address < header.load_address or header.load_end_address - header.load_address > length:
            return Status.BAD_ARGUMENT
        length = header.load_end_address - header.load_address
    place.start = header.load_address
    place.end = place.start + length
    if header.bss_end_address != 0:
        if header.bss_end_address < place.end:
            return Status.BAD_ARGUMENT
        place.end = header.bss_end_address
    place.entry = header.entry_address
    if not is_memory(vm, place.start, place.end - place.start):
        return Status.BAD_ADDRESS
    return guest_memory.load_image(vm, Gpa(place.start), Hva(file + first), length)


def load_elf(vm: Vm, file: Hva, size: u64, place: Placement) -> Status:
    """What the program headers name, at their physical addresses."""
    header = elf32.ElfHeader()
    segment = elf32.ProgramHeader()
    status = elf32.read_header(file, size, header)
    if status != Status.OK:
        return status
    place.entry = header.entry
    place.start = 1 << 32
    for index in range(header.program_count):
        if elf32.read_segment(file, size, header, index, segment):
            start: u64 = segment.physical_address
            if not is_memory(vm, start, segment.memory_size):
                return Status.BAD_ADDRESS
            status = guest_memory.load_image(vm, Gpa(start), Hva(file + segment.offset), segment.file_size)
            if status != Status.OK:
                return status
            place.start = min(place.start, start)
            place.end = max(place.end, start + segment.memory_size)
            if segment.virtual_address <= header.entry < u64(segment.virtual_address) + segment.memory_size:
                place.entry = start + (header.entry - segment.virtual_address)
        elif segment.type == elf32.PT_LOAD and segment.memory_size != 0:
            return Status.BAD_ARGUMENT
    return Status.OK if place.end != 0 else Status.BAD_ARGUMENT


def load_modules(vm: Vm, config: VmConfig, place: Placement) -> Status:
    """Behind the kernel, each on a page boundary. Fills in staged.modules and staged.texts."""
    module = Member()
    if config.module_count > MODULES_MOST:
        return Status.BAD_ARGUMENT
    place.end = next_page(max(place.end, HIGH_MEMORY))
    for index in range(config.module_count):
        wanted = config.modules[index]
        status = bundle.find_bytes(address(wanted.file), len(wanted.file), module)
        if status == Status.OK:
            status = guest_memory.load_image(vm, Gpa(place.end), hva_of(module.hpa), module.size)
        if status != Status.OK:
            return status
        entry = staged.modules[index]
        entry.start = u32(place.end)
        entry.end = u32(place.end + module.size)
        for i in range(MODULE_TEXT_BYTES - 1):
            staged.texts[index][i] = wanted.text[i]
        place.end = next_page(place.end + module.size)
    return Status.OK


def next_page(gpa: u64) -> u64:
    """`gpa`, or the next page boundary behind it."""
    return (gpa + PAGE_SIZE - 1) & ~u64(PAGE_SIZE - 1)


def write_info(vm: Vm, config: VmConfig, place: u64) -> Status:
    """The boot information and all it points to, at `place`."""
    info = staged.info
    info.flags = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MODULES | INFO_MEMORY_MAP | INFO_LOADER_NAME
    info.mem_lower = u32(LOW_MEMORY_END >> 10)
    info.mem_upper = u32((vm.memory_bytes - HIGH_MEMORY) >> 10)
    info.cmdline = u32(place + offsetof(Area, "cmdline"))
    info.mods_count = config.module_count
    info.mods_address = u32(place + offsetof(Area, "modules"))
    for index in range(config.module_count):
        staged.modules[index].text = u32(place + offsetof(Area, "texts") + index * MODULE_TEXT_BYTES)
    info.mmap_address = u32(place + offsetof(Area, "map"))
    info.mmap_length = MAP_ENTRIES * sizeof(MapEntry)
    info.boot_loader_name = u32(place + offsetof(Area, "loader_name"))
    at_name = at(Word, address(staged.loader_name))
    at_name.value = LOADER_NAME
    copy(staged.cmdline, config.cmdline)
    set_range(0, 0, LOW_MEMORY_END, MAP_AVAILABLE)
    set_range(1, LOW_MEMORY_END, 0xA0000, MAP_RESERVED)
    set_range(2, acpi_tables.AREA, HIGH_MEMORY, MAP_RESERVED)
    set_range(3, HIGH_MEMORY, vm.memory_bytes, MAP_AVAILABLE)
    return guest_memory.load_image(vm, Gpa(place), Hva(address(staged)), sizeof(Area))


@struct
class Word:
    """Eight bytes of text."""

    value: u64


def set_range(index: u32, start: u64, end: u64, kind: u32) -> None:
    """One line of the memory map."""
    entry = staged.map[index]
    entry.size = sizeof(MapEntry) - 4
    entry.base = start
    entry.length = end - start
    entry.type = kind


def set_entry_state(vcpu: Vcpu, entry: u64, info: u64) -> None:
    """3.2: protected mode without paging, flat 32-bit segments, A20 on, interrupts off; no stack, GDT or IDT to rely on."""
    vcpu.regs.rip = entry
    vcpu.regs.rax = BOOTLOADER_MAGIC
    vcpu.regs.rbx = info
    state = GuestState()
    state.cr0 = CR0_PE | CR0_ET
    state.dr6 = DR6_INIT
    state.dr7 = DR7_INIT
    state.pat = PAT_INIT
    set_segments_32(state, SELECTOR_CODE, SELECTOR_DATA)
    backend.write_state(vcpu, state)
