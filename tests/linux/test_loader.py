"""The loader of bzImages: where things land, what is refused, and that no file can upset it."""
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor.abi import VmConfig
from hypervisor.addresses import PAGE_SIZE, Hpa
from hypervisor.arch_x86.state import CS, DS, GuestState
from hypervisor.arch_x86 import backend
from hypervisor.bundle import Member
from hypervisor.lang import address, copy, map_memory, offsetof, read_memory, sizeof, unmap_memory
from hypervisor.loaders import linux64
from hypervisor.loaders.linux64 import BootParams, SetupHeader
from hypervisor.memory import guest_paging
from hypervisor.memory.guest_paging import PagingMode, Translation
from hypervisor.status import Status
from tests.linux.stock import PAGES, Stock

FILES = 0x60_0000_0000
MEMORY = PAGES * PAGE_SIZE
SETUP_SECTS = 1
PAYLOAD = bytes(range(256)) * 20


def header() -> SetupHeader:
    """One that Debian's kernel could have, small."""
    made = SetupHeader()
    made.setup_sects = SETUP_SECTS
    made.boot_flag, made.header, made.version = 0xAA55, 0x53726448, 0x020F
    made.syssize = len(PAYLOAD) // 16
    made.loadflags, made.xloadflags, made.relocatable_kernel = 1, 0x3F, 1
    made.kernel_alignment, made.pref_address, made.init_size = 0x200000, 0x1000000, 0x40000
    made.initrd_addr_max, made.cmdline_size = 0x7FFFFFFF, 2047
    return made


def image(of: SetupHeader) -> bytes:
    """The file."""
    data = bytearray((SETUP_SECTS + 1) * 512) + PAYLOAD
    size = sizeof(SetupHeader)
    data[0x1F1:0x1F1 + size] = read_memory(address(of), size).to_bytes(size, "little")
    return bytes(data)


def load(stock: Stock, kernel: bytes, initrd: bytes = b"", cmdline: bytes = b"console=ttyS0") -> Status:
    """Load files that stand one behind the other."""
    data = bytearray(kernel + initrd + bytes(16))
    map_memory(FILES, data)
    try:
        config = VmConfig()
        for i, byte in enumerate(cmdline):
            config.cmdline[i] = byte
        file, initial = Member(), Member()
        file.hpa, file.size = Hpa(FILES), len(kernel)
        initial.hpa, initial.size = Hpa(FILES + len(kernel)), len(initrd)
        return linux64.load(stock.vm, config, file, initial)
    finally:
        unmap_memory(FILES)


def params(stock: Stock, field: str, size: int) -> int:
    return stock.number_at(linux64.BOOT_PARAMS + offsetof(BootParams, field), size)


def setup(stock: Stock, field: str, size: int) -> int:
    return stock.number_at(linux64.BOOT_PARAMS + 0x1F1 + offsetof(SetupHeader, field), size)


def test_layouts_are_those_of_linux() -> None:
    """arch/x86/include/uapi/asm/bootparam.h"""
    assert sizeof(BootParams) == 4096
    wanted = {"acpi_rsdp_addr": 0x70, "e820_entries": 0x1E8, "header": 0x1F1, "e820_table": 0x2D0}
    assert {name: offsetof(BootParams, name) for name in wanted} == wanted
    fields = {"boot_flag": 0x1FE, "header": 0x202, "version": 0x206, "loadflags": 0x211, "ramdisk_image": 0x218, "cmd_line_ptr": 0x228,
              "initrd_addr_max": 0x22C, "kernel_alignment": 0x230, "relocatable_kernel": 0x234, "xloadflags": 0x236,
              "cmdline_size": 0x238, "setup_data": 0x250, "pref_address": 0x258, "init_size": 0x260}
    assert {name: 0x1F1 + offsetof(SetupHeader, name) for name in fields} == fields


def test_everything_lands_where_the_kernel_looks(stock: Stock) -> None:
    initrd = b"file system" * 500
    assert load(stock, image(header()), initrd, b"console=ttyS0 quiet") == Status.OK
    assert stock.bytes_at(0x1000000, len(PAYLOAD)) == PAYLOAD
    place = setup(stock, "ramdisk_image", 4)
    assert place % PAGE_SIZE == 0 and place + len(initrd) <= MEMORY < place + len(initrd) + PAGE_SIZE
    assert setup(stock, "ramdisk_size", 4) == len(initrd)
    assert stock.bytes_at(place, len(initrd)) == initrd
    assert stock.bytes_at(setup(stock, "cmd_line_ptr", 4), 20) == b"console=ttyS0 quiet\0"
    assert setup(stock, "type_of_loader", 1) == 0xFF
    table = linux64.BOOT_PARAMS + offsetof(BootParams, "e820_table")
    ranges = [(stock.number_at(table + 20 * i, 8), stock.number_at(table + 20 * i + 8, 8), stock.number_at(table + 20 * i + 16, 4))
              for i in range(params(stock, "e820_entries", 1))]
    assert ranges == [(0, 0x9FC00, 1), (0x9FC00, 0x400, 2), (0xE0000, 0x20000, 2), (0x100000, MEMORY - 0x100000, 1)]


def test_the_vcpu_starts_at_the_64_bit_entry(stock: Stock) -> None:
    assert load(stock, image(header())) == Status.OK
    state = GuestState()
    backend.read_state(stock.vcpu, state)
    assert stock.vcpu.regs.rip == 0x1000200 and stock.vcpu.regs.rsi == linux64.BOOT_PARAMS
    assert state.segments[CS].selector == 0x10 and state.segments[DS].selector == 0x18
    assert stock.number_at(state.gdtr_base + 0x10, 8) == 0x00AF9B000000FFFF
    mode = PagingMode()
    mode.cr0, mode.cr3, mode.cr4, mode.efer = state.cr0, state.cr3, state.cr4, state.efer
    found = Translation()
    for linear in (0, 0x7000, 0x1000200, MEMORY - 1, 0xFFFFFFFF):
        assert guest_paging.translate(stock.vm, mode, linear, guest_paging.ACCESS_WRITE, found) == Status.OK
        assert found.gpa == linear


def test_a_kernel_that_prefers_low_memory_moves_up(stock: Stock) -> None:
    wanted = header()
    wanted.pref_address = 0x10000
    assert load(stock, image(wanted)) == Status.OK
    assert stock.vcpu.regs.rip == 0x200000 + 0x200


def test_the_initial_file_system_respects_the_kernels_limit(stock: Stock) -> None:
    wanted = header()
    wanted.initrd_addr_max = 0x17FFFFF
    assert load(stock, image(wanted), bytes(5000)) == Status.OK
    assert setup(stock, "ramdisk_image", 4) == 0x17FE000


def with_field(name: str, value: int) -> bytes:
    made = header()
    setattr(made, name, value)
    return image(made)


@pytest.mark.parametrize(("name", "value", "status"), [
    ("boot_flag", 0x55AA, Status.BAD_ARGUMENT),
    ("header", 0, Status.BAD_ARGUMENT),
    ("version", 0x020B, Status.UNSUPPORTED),
    ("loadflags", 0, Status.UNSUPPORTED),
    ("xloadflags", 0, Status.UNSUPPORTED),
    ("setup_sects", 200, Status.BAD_ARGUMENT),
    ("syssize", 0xFFFFFFFF, Status.BAD_ARGUMENT),
    ("kernel_alignment", 0x300000, Status.BAD_ARGUMENT),
    ("kernel_alignment", 0, Status.BAD_ARGUMENT),
    ("init_size", 0x7FFFFFFF, Status.BAD_ADDRESS),
    ("cmdline_size", 5, Status.BAD_ARGUMENT),
])
def test_what_cannot_be_booted_is_refused(stock: Stock, name: str, value: int, status: Status) -> None:
    assert load(stock, with_field(name, value)) == status


def test_no_room_for_the_initial_file_system(stock: Stock) -> None:
    wanted = header()
    wanted.init_size = MEMORY - 0x1000000
    assert load(stock, image(wanted)) == Status.OK
    assert load(stock, image(wanted), b"x") == Status.BAD_ADDRESS
    wanted = header()
    wanted.initrd_addr_max = 100
    assert load(stock, image(wanted), bytes(5000)) == Status.BAD_ADDRESS


@given(st.binary(max_size=sizeof(SetupHeader)), st.integers(0, sizeof(SetupHeader)), st.integers(0, 6000))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_upsets_it(stock: Stock, garbage: bytes, at: int, cut: int) -> None:
    """A header with bytes changed, a file cut off: loaded or refused, never a fault."""
    data = bytearray(image(header()))
    data[0x1F1 + at:0x1F1 + at + len(garbage)] = garbage
    load(stock, bytes(data[:cut]))
    load(stock, bytes(data))


def test_acpi_tables_are_found_and_whole(stock: Stock) -> None:
    """From the RSDP to all tables, each with a checksum of zero; the sleep type is the one that switches off."""
    assert load(stock, image(header())) == Status.OK
    rsdp = params(stock, "acpi_rsdp_addr", 8)
    assert stock.bytes_at(rsdp, 8) == b"RSD PTR " and rsdp % 16 == 0
    assert sum(stock.bytes_at(rsdp, 20)) % 256 == 0 and sum(stock.bytes_at(rsdp, 36)) % 256 == 0

    def table(place: int, signature: bytes) -> int:
        assert stock.bytes_at(place, 4) == signature
        length = stock.number_at(place + 4, 4)
        assert sum(stock.bytes_at(place, length)) % 256 == 0
        return length
    xsdt = stock.number_at(rsdp + 24, 8)
    assert table(xsdt, b"XSDT") == 60
    fadt = stock.number_at(xsdt + 36, 8)
    assert table(fadt, b"FACP") == 244
    dsdt = stock.number_at(fadt + 140, 8)
    assert stock.number_at(fadt + 40, 4) == dsdt
    size = table(dsdt, b"DSDT")
    assert b"\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00" in stock.bytes_at(dsdt, size)
    madt = stock.number_at(xsdt + 44, 8)
    assert table(madt, b"APIC") == 90
    entries, place = [], madt + 44
    while place < madt + 90:
        entries.append(stock.bytes_at(place, stock.number_at(place + 1, 1)))
        place += len(entries[-1])
    assert [(entry[0], len(entry)) for entry in entries] == [(1, 12), (2, 10), (2, 10), (4, 6), (0, 8)] and place == madt + 90
    hpet = stock.number_at(xsdt + 52, 8)
    assert table(hpet, b"HPET") == 56 and stock.number_at(hpet + 44, 8) == 0xFED00000
    facs = stock.number_at(fadt + 36, 4)
    assert stock.bytes_at(facs, 4) == b"FACS" and facs % 64 == 0
    assert [stock.number_at(fadt + offset, 4) for offset in (56, 64, 76)] == [0x600, 0x604, 0x608]
    assert stock.number_at(fadt + 46, 2) == 9


def test_a_header_is_used_from_the_copy(stock: Stock) -> None:
    """What is checked is what is loaded: the header of the guest's boot_params is the one that was read."""
    made = header()
    assert load(stock, image(made)) == Status.OK
    kept = SetupHeader()
    copy(kept, linux64.params.header)
    assert kept.init_size == made.init_size and setup(stock, "init_size", 4) == made.init_size
