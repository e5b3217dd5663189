"""Loader of Linux: a bzImage by the 64-bit boot protocol, with initial file system and command line.

Linux Documentation/x86/boot.rst (6.1), protocol 2.12 and later. The image comes from the bundle and is not trusted: each
field is checked against the file and the VM's memory, from a copy.

| guest-physical | what |
|---|---|
| 6000 | GDT: 10 code, 18 data |
| 7000 | boot_params |
| 9000-EFFF | PML4, PDPT, four page directories: the first 4 GiB mapped to itself |
| 20000 | command line |
| E0000 | ACPI tables |
| pref_address or the next place that kernel_alignment allows | kernel; init_size bytes are its own |
| top of memory, below initrd_addr_max | initial file system |
"""
from typing import Annotated, Final

from hypervisor.abi import VmConfig
from hypervisor.addresses import PAGE_SIZE, Gpa, Hva, hva_of
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.defs.cr import CR0_ET, CR0_NE, CR0_PE, CR0_PG, CR4_PAE, DR6_INIT, DR7_INIT, EFER_LMA, EFER_LME, PAT_INIT
from hypervisor.arch_x86.state import GuestState
from hypervisor.bundle import Member
from hypervisor.lang import address, at, clear, copy, sizeof, struct, u8, u16, u32, u64
from hypervisor.loaders import acpi_tables
from hypervisor.loaders.long_mode import set_segments
from hypervisor.memory import guest_memory
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status

GDT: Final[u64] = 0x6000
BOOT_PARAMS: Final[u64] = 0x7000
PAGE_TABLES: Final[u64] = 0x9000
COMMAND_LINE: Final[u64] = 0x20000
LOW_MEMORY_END: Final[u64] = 0x9FC00  # where a PC has its extended BIOS data area
HIGH_MEMORY: Final[u64] = 0x100000

SECTOR: Final = 512
SETUP_HEADER: Final = 0x1F1
SETUP_SECTS_DEFAULT: Final = 4
BOOT_FLAG: Final = 0xAA55
HEADER_MAGIC: Final[u32] = 0x5372_6448  # "HdrS"
VERSION_LEAST: Final = 0x020C  # xloadflags
LOADED_HIGH: Final = 1
XLF_KERNEL_64: Final = 1
LOADER_UNDEFINED: Final = 0xFF  # type_of_loader: none of those registered
ENTRY_64: Final = 0x200
E820_RAM: Final = 1
E820_RESERVED: Final = 2
E820_ENTRIES: Final = 4
SELECTOR_CODE: Final = 0x10
SELECTOR_DATA: Final = 0x18
GDT_CODE: Final[u64] = 0x00AF_9B00_0000_FFFF
GDT_DATA: Final[u64] = 0x00CF_9300_0000_FFFF
PTE_P_W: Final[u64] = 3
PTE_P_W_PS: Final[u64] = 0x83
CMDLINE_BYTES: Final = 1024


@struct(packed=True)
class SetupHeader:
    """struct setup_header, from offset 1F1 of the image to init_size."""

    setup_sects: u8
    root_flags: u16
    syssize: u32
    ram_size: u16
    vid_mode: u16
    root_dev: u16
    boot_flag: u16
    jump: u16
    header: u32
    version: u16
    realmode_swtch: u32
    start_sys_seg: u16
    kernel_version: u16
    type_of_loader: u8
    loadflags: u8
    setup_move_size: u16
    code32_start: u32
    ramdisk_image: u32
    ramdisk_size: u32
    bootsect_kludge: u32
    heap_end_ptr: u16
    ext_loader_ver: u8
    ext_loader_type: u8
    cmd_line_ptr: u32
    initrd_addr_max: u32
    kernel_alignment: u32
    relocatable_kernel: u8
    min_alignment: u8
    xloadflags: u16
    cmdline_size: u32
    hardware_subarch: u32
    hardware_subarch_data: u64
    payload_offset: u32
    payload_length: u32
    setup_data: u64
    pref_address: u64
    init_size: u32
    handover_offset: u32
    kernel_info_offset: u32


@struct(packed=True)
class E820Entry:
    """struct boot_e820_entry."""

    address: u64
    size: u64
    type: u32


@struct(packed=True)
class BootParams:
    """struct boot_params, the zero page, 4096 bytes."""

    screen_info: Annotated[list[u8], 0x70]
    acpi_rsdp_addr: u64
    before_counts: Annotated[list[u8], 0x170]
    e820_entries: u8
    before_header: Annotated[list[u8], 8]
    header: SetupHeader
    after_header: Annotated[list[u8], 100]
    e820_table: Annotated[list[E820Entry], 128]
    rest: Annotated[list[u8], 0x330]


@struct
class DescriptorTable:
    """A GDT."""

    entries: Annotated[list[u64], 4]


@struct
class PageTable:
    """One table."""

    entries: Annotated[list[u64], 512]


@struct
class Placement:
    """Where things go; end is exclusive."""

    setup_bytes: u64
    kernel: u64
    kernel_end: u64
    initrd: u64


params: Final = BootParams()
table: Final = PageTable()


def load(vm: Vm, config: VmConfig, kernel: Member, initrd: Member) -> Status:
    """Load, and set the first vCPU's state. An initrd of size 0: none.

    BAD_ARGUMENT: not a kernel for us; BAD_ADDRESS: the VM's memory is too small; UNSUPPORTED: an image without 64-bit entry.
    """
    assert sizeof(BootParams) == PAGE_SIZE
    place = Placement()
    clear(params)
    image = hva_of(kernel.hpa)
    status = read_header(image, kernel.size, place)
    if status == Status.OK:
        status = place_kernel(vm, kernel.size, place)
    if status == Status.OK:
        status = place_initrd(vm, initrd.size, place)
    if status == Status.OK:
        status = guest_memory.load_image(vm, Gpa(place.kernel), Hva(image + place.setup_bytes), kernel.size - place.setup_bytes)
    if status == Status.OK and initrd.size != 0:
        status = guest_memory.load_image(vm, Gpa(place.initrd), hva_of(initrd.hpa), initrd.size)
    if status == Status.OK:
        status = write_boot_params(vm, config, place, initrd.size)
    if status == Status.OK:
        status = write_tables(vm)
    if status == Status.OK:
        status = acpi_tables.write(vm)
    if status == Status.OK:
        first = vm.vcpus[0]
        assert first is not None
        set_entry_state(first, place)
    return status


def read_header(kernel: Hva, size: u64, place: Placement) -> Status:
    """Copy the setup header and check what this loader relies on."""
    header = params.header
    if size < SETUP_HEADER + sizeof(SetupHeader):
        return Status.BAD_ARGUMENT
    copy(header, at(SetupHeader, Hva(kernel + SETUP_HEADER)))
    if header.boot_flag != BOOT_FLAG or header.header != HEADER_MAGIC:
        return Status.BAD_ARGUMENT
    if header.version < VERSION_LEAST or header.loadflags & LOADED_HIGH == 0 or header.xloadflags & XLF_KERNEL_64 == 0:
        return Status.UNSUPPORTED
    sectors: u64 = header.setup_sects if header.setup_sects != 0 else SETUP_SECTS_DEFAULT
    place.setup_bytes = (sectors + 1) * SECTOR
    if size <= place.setup_bytes or u64(header.syssize) * 16 > size - place.setup_bytes + 15:
        return Status.BAD_ARGUMENT
    alignment: u64 = header.kernel_alignment
    if alignment < PAGE_SIZE or alignment & (alignment - 1) != 0 or size - place.setup_bytes <= ENTRY_64:
        return Status.BAD_ARGUMENT
    return Status.OK


def place_kernel(vm: Vm, size: u64, place: Placement) -> Status:
    """At its preferred address; if that is in low memory or unaligned and it can be relocated, at the next place allowed."""
    header = params.header
    alignment: u64 = header.kernel_alignment
    wanted: u64 = header.pref_address
    if header.relocatable_kernel != 0:
        if wanted < HIGH_MEMORY or wanted > vm.memory_bytes:
            wanted = HIGH_MEMORY
        wanted = (wanted + alignment - 1) & ~(alignment - 1)
    needed: u64 = header.init_size
    if needed < size - place.setup_bytes:
        needed = size - place.setup_bytes
    if wanted < HIGH_MEMORY or not guest_memory.in_ram(vm, Gpa(wanted), needed):
        return Status.BAD_ADDRESS
    place.kernel = wanted
    place.kernel_end = wanted + needed
    return Status.OK


def place_initrd(vm: Vm, size: u64, place: Placement) -> Status:
    """As high as memory and the kernel allow, page-aligned, not over the kernel."""
    if size == 0:
        return Status.OK
    top: u64 = vm.memory_bytes
    highest: u64 = u64(params.header.initrd_addr_max) + 1
    if top > highest:
        top = highest
    if size > top:
        return Status.BAD_ADDRESS
    place.initrd = (top - size) & ~u64(PAGE_SIZE - 1)
    return Status.OK if place.initrd >= place.kernel_end else Status.BAD_ADDRESS


def write_boot_params(vm: Vm, config: VmConfig, place: Placement, initrd_size: u64) -> Status:
    """The zero page and the command line."""
    length: u64 = 0
    while length < CMDLINE_BYTES - 1 and config.cmdline[length] != 0:
        length += 1
    header = params.header
    if length > header.cmdline_size:
        return Status.BAD_ARGUMENT
    header.type_of_loader = LOADER_UNDEFINED
    header.code32_start = u32(place.kernel)
    header.cmd_line_ptr = u32(COMMAND_LINE)
    header.ramdisk_image = u32(place.initrd)
    header.ramdisk_size = u32(initrd_size)
    header.setup_data = 0
    params.acpi_rsdp_addr = acpi_tables.AREA
    params.e820_entries = E820_ENTRIES
    set_range(0, 0, LOW_MEMORY_END, E820_RAM)
    set_range(1, LOW_MEMORY_END, 0xA0000, E820_RESERVED)
    set_range(2, acpi_tables.AREA, HIGH_MEMORY, E820_RESERVED)
    set_range(3, HIGH_MEMORY, vm.memory_bytes, E820_RAM)
    status = guest_memory.load_image(vm, Gpa(COMMAND_LINE), Hva(address(config.cmdline)), length + 1)
    if status != Status.OK:
        return status
    return guest_memory.load_image(vm, Gpa(BOOT_PARAMS), Hva(address(params)), sizeof(BootParams))


def set_range(index: u32, start: u64, end: u64, kind: u32) -> None:
    """One line of the memory map."""
    entry = params.e820_table[index]
    entry.address = start
    entry.size = end - start
    entry.type = kind


def write_tables(vm: Vm) -> Status:
    """GDT, and page tables for the first 4 GiB by 2 MiB pages."""
    gdt = DescriptorTable()
    gdt.entries[SELECTOR_CODE // 8] = GDT_CODE
    gdt.entries[SELECTOR_DATA // 8] = GDT_DATA
    status = guest_memory.load_image(vm, Gpa(GDT), Hva(address(gdt)), sizeof(DescriptorTable))
    clear(table)
    table.entries[0] = (PAGE_TABLES + PAGE_SIZE) | PTE_P_W
    if status == Status.OK:
        status = put_table(vm, 0)
    for index in range(4):
        table.entries[index] = (PAGE_TABLES + (2 + u64(index)) * PAGE_SIZE) | PTE_P_W
    if status == Status.OK:
        status = put_table(vm, 1)
    for directory in range(4):
        for index in range(512):
            table.entries[index] = (u64(directory) << 30) + (u64(index) << 21) | PTE_P_W_PS
        if status == Status.OK:
            status = put_table(vm, u64(2 + directory))
    return status


def put_table(vm: Vm, number: u64) -> Status:
    """Copy `table` to its place."""
    return guest_memory.load_image(vm, Gpa(PAGE_TABLES + number * PAGE_SIZE), Hva(address(table)), sizeof(PageTable))


def set_entry_state(vcpu: Vcpu, place: Placement) -> None:
    """startup_64: 64-bit mode, paging on, interrupts off, RSI at boot_params (boot.rst, "64-bit Boot Protocol")."""
    vcpu.regs.rip = place.kernel + ENTRY_64
    vcpu.regs.rsi = BOOT_PARAMS
    state = GuestState()
    state.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG
    state.cr3 = PAGE_TABLES
    state.cr4 = CR4_PAE
    state.efer = EFER_LME | EFER_LMA
    state.dr6 = DR6_INIT
    state.dr7 = DR7_INIT
    state.pat = PAT_INIT
    state.gdtr_base = GDT
    state.gdtr_limit = sizeof(DescriptorTable) - 1
    set_segments(state, SELECTOR_CODE, SELECTOR_DATA)
    backend.write_state(vcpu, state)
