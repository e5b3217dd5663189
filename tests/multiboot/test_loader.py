"""The Multiboot loader: where things land, what is refused, and that no file can upset it."""
from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor.abi import VmConfig
from hypervisor.addresses import Hpa
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.state import CS, GuestState
from hypervisor.bundle import Member, bundle
from hypervisor import bundle as bundles
from hypervisor.lang import map_memory, unmap_memory
from hypervisor.loaders import multiboot
from hypervisor.status import Status
from krait import newc
from tests.linux.stock import PAGES, Stock, stock

__all__ = ["stock"]

FILES = 0x60_0000_0000
MEMORY = PAGES << 12
MAGIC = 0x1BADB002
PAYLOAD = bytes(range(256)) * 20


def header(flags: int, *addresses: int) -> bytes:
    """A Multiboot header."""
    return struct.pack("<3I", MAGIC, flags, -(MAGIC + flags) & 0xFFFFFFFF) + struct.pack(f"<{len(addresses)}I", *addresses)


def flat(load: int = 0x100000, end: int = 0, bss: int = 0, entry: int = 0x100020, before: int = 8) -> bytes:
    """A file with addresses; `before` bytes of it come before what is loaded."""
    return bytes(before) + header(0x10003, load, load, end, bss, entry) + PAYLOAD


def elf(segments: list[tuple[int, int, bytes, int]], entry: int, flags: int = 3) -> bytes:
    """An ELF32 file of segments (physical, virtual, contents, size in memory); the header stands in the first one's contents."""
    start = 52 + 32 * len(segments)
    table, data = b"", b""
    for physical, virtual, contents, size in segments:
        table += struct.pack("<8I", 1, start + len(data), virtual, physical, len(contents), size, 7, 4)
        data += contents + bytes(-len(contents) % 4)
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    return ident + struct.pack("<2H5I6H", 2, 3, 1, entry, 52, 0, 0, 52, 32, len(segments), 0, 0, 0) + table + data


GOOD_ELF = elf([(0x100000, 0x100000, header(3) + PAYLOAD, 0x3000), (0x200000, 0xC0000000, b"high" * 9, 64)], 0x100020)


def load(stock: Stock, kernel: bytes, cmdline: bytes = b"", modules: tuple[tuple[bytes, bytes], ...] = ()) -> Status:
    """Load a kernel and modules (contents, text) from a bundle."""
    members = [newc.Member("kernel", kernel), *(newc.Member(f"m{i}", data) for i, (data, _) in enumerate(modules))]
    archive = bytearray(newc.write(members))
    map_memory(FILES, archive + bytearray(16))
    try:
        assert bundles.init(Hpa(FILES), len(archive)) == Status.OK
        config = VmConfig()
        config.module_count = len(modules)
        for i, byte in enumerate(cmdline):
            config.cmdline[i] = byte
        for index, (_, text) in enumerate(modules):
            for target, value in ((config.modules[index].file, f"m{index}".encode()), (config.modules[index].text, text)):
                for i, byte in enumerate(value):
                    target[i] = byte
        file = Member()
        assert bundles.find("kernel", file) == Status.OK
        return multiboot.load(stock.vm, config, file)
    finally:
        bundle.members = 0
        unmap_memory(FILES)


def info(stock: Stock) -> tuple[int, ...]:
    """The first 17 words of the boot information."""
    return struct.unpack("<17I", stock.bytes_at(stock.vcpu.regs.rbx, 68))


def test_an_elf_file_lands_at_its_physical_addresses(stock: Stock) -> None:
    assert load(stock, GOOD_ELF) == Status.OK
    assert stock.bytes_at(0x100000 + 12, len(PAYLOAD)) == PAYLOAD
    assert stock.bytes_at(0x200000, 36) == b"high" * 9
    assert stock.vcpu.regs.rip == 0x100020


def test_a_virtual_entry_becomes_a_physical_one(stock: Stock) -> None:
    file = elf([(0x100000, 0xC0100000, header(0) + PAYLOAD, 0x3000)], 0xC0100040)
    assert load(stock, file) == Status.OK
    assert stock.vcpu.regs.rip == 0x100040


def test_the_machine_is_as_the_specification_says(stock: Stock) -> None:
    """3.2: EAX, EBX, flat 32-bit segments, protected mode without paging, interrupts off."""
    assert load(stock, GOOD_ELF) == Status.OK
    state = GuestState()
    backend.read_state(stock.vcpu, state)
    assert stock.vcpu.regs.rax == 0x2BADB002 and stock.vcpu.regs.rbx == 0x9000
    assert state.cr0 & 0x80000001 == 1 and state.efer == 0 and stock.vcpu.regs.rflags & 0x20200 == 0
    for index in range(4):
        assert (state.segments[index].base, state.segments[index].limit) == (0, 0xFFFFFFFF)
    assert state.segments[CS].attributes == 0xC09B


def test_boot_information(stock: Stock) -> None:
    modules = ((b"a" * 5000, b"a root=ram"), (b"b", b"b"))
    assert load(stock, GOOD_ELF, b"one two", modules) == Status.OK
    found = info(stock)
    assert found[0] == 0x24D
    assert found[1:3] == (639, (MEMORY >> 10) - 1024)
    assert stock.bytes_at(found[4], 8) == b"one two\0"
    assert found[5] == 2
    first, second = (struct.unpack("<4I", stock.bytes_at(found[6] + 16 * i, 16)) for i in range(2))
    assert first[:2] == (0x201000, 0x201000 + 5000) and second[:2] == (0x203000, 0x203001)
    assert stock.bytes_at(first[0], 5000) == b"a" * 5000 and stock.bytes_at(first[2], 11) == b"a root=ram\0"
    ranges = [struct.unpack("<IQQI", stock.bytes_at(found[12] + 24 * i, 24)) for i in range(found[11] // 24)]
    assert ranges == [(20, 0, 0x9FC00, 1), (20, 0x9FC00, 0x400, 2), (20, 0xE0000, 0x20000, 2), (20, 1 << 20, MEMORY - (1 << 20), 1)]
    assert stock.bytes_at(found[16], 6) == b"Krait\0"


def test_addresses_in_the_header(stock: Stock) -> None:
    """Whole file and no bss where they are 0; else what they say. A kernel in low memory has its information above it."""
    assert load(stock, flat()) == Status.OK
    assert stock.bytes_at(0x100000 + 32, len(PAYLOAD)) == PAYLOAD and stock.vcpu.regs.rip == 0x100020
    assert load(stock, flat(0x10000, 0x10000 + 32 + 256, 0x20000, 0x10020), modules=((b"x", b"x"),)) == Status.OK
    assert stock.bytes_at(0x10020, 256 + 4) == PAYLOAD[:256] + bytes(4)
    assert stock.vcpu.regs.rbx == 0x101000
    assert struct.unpack("<I", stock.bytes_at(info(stock)[6], 4)) == (0x100000,)


@pytest.mark.parametrize(("kernel", "status"), [
    (bytes(8192) + GOOD_ELF, Status.BAD_ARGUMENT),
    (b"\0" + header(3) + PAYLOAD, Status.BAD_ARGUMENT),  # not 4-byte aligned
    (struct.pack("<3I", MAGIC, 3, 1), Status.BAD_ARGUMENT),  # checksum
    (header(7) + PAYLOAD, Status.UNSUPPORTED),  # graphics
    (header(0x8003) + PAYLOAD, Status.UNSUPPORTED),
    (header(3) + PAYLOAD, Status.UNSUPPORTED),  # no ELF file
    (GOOD_ELF[:18] + b"\x3e" + GOOD_ELF[19:], Status.UNSUPPORTED),  # EM_X86_64
    (flat(0xF0000), Status.BAD_ADDRESS),  # into the hole below 1 MiB
    (flat(0x9F000), Status.BAD_ADDRESS),
    (flat(MEMORY - 0x1000), Status.BAD_ADDRESS),
    (flat(bss=MEMORY + 1), Status.BAD_ADDRESS),
    (flat(bss=0x100001), Status.BAD_ARGUMENT),  # before the end of what is loaded
    (flat(end=0xFFFFF), Status.BAD_ARGUMENT),
    (flat(end=0x110000), Status.BAD_ARGUMENT),  # beyond the file
    (header(0x10003, 0x100000, 0x100004, 0, 0, 0) + PAYLOAD, Status.BAD_ARGUMENT),
    (header(0x10003, 0x100004, 0x100000, 0, 0, 0) + PAYLOAD, Status.BAD_ARGUMENT),
    (header(0x10003), Status.BAD_ARGUMENT),
    (elf([(0xA0000, 0, header(3), 64)], 0), Status.BAD_ADDRESS),
    (elf([(0xFFFFF000, 0, header(3), 0x2000)], 0), Status.BAD_ADDRESS),
    (elf([(0x100000, 0, header(3), 4)], 0), Status.BAD_ARGUMENT),  # more in the file than in memory
])
def test_what_cannot_be_booted_is_refused(stock: Stock, kernel: bytes, status: Status) -> None:
    assert load(stock, kernel) == status


def test_modules_that_do_not_fit_are_refused(stock: Stock) -> None:
    file = elf([(0x100000, 0x100000, header(3), MEMORY - 0x101000)], 0x100000)
    assert load(stock, file, modules=((b"x", b"x"),)) == Status.OK
    assert load(stock, file, modules=((b"x" * 4097, b"x"),)) == Status.BAD_ADDRESS


@given(st.sampled_from([GOOD_ELF[:400], flat()[:300]]), st.integers(0, 130), st.binary(max_size=40), st.integers(0, 400))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_upsets_it(stock: Stock, good: bytes, at: int, garbage: bytes, cut: int) -> None:
    """A file with bytes changed, or cut off: loaded or refused, never a fault."""
    load(stock, (good[:at] + garbage + good[at + len(garbage):])[:cut])
