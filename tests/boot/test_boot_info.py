"""hypervisor/boot_info.py against what QEMU (PVH) and GRUB (Multiboot 2) leave in memory, and against damage."""
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor import boot_info
from hypervisor.boot_info import MULTIBOOT2_MAGIC, PVH_MAGIC, Loader, info
from hypervisor.lang import address, clear, map_memory, text_at, unmap_memory
from hypervisor.status import Status

BASE = 0x9_0000
RSDP = b"RSD PTR " + bytes(range(28))


@pytest.fixture(autouse=True)
def _unmap() -> Iterator[None]:
    yield
    forget()


def forget() -> None:
    """Nothing in memory, nothing known."""
    clear(info)
    try:
        unmap_memory(BASE)
    except KeyError:
        pass


def tag(kind: int, body: bytes) -> bytes:
    """One Multiboot 2 tag with its padding."""
    return struct.pack("<II", kind, 8 + len(body)) + body + bytes(-len(body) % 8)


def multiboot2(*tags: bytes) -> bytes:
    """Boot information with an end tag."""
    body = b"".join(tags) + tag(0, b"")
    return struct.pack("<II", 8 + len(body), 0) + body


def entries(ranges: list[tuple[int, int, int]]) -> bytes:
    """Memory map entries, of the same form in both protocols."""
    return b"".join(struct.pack("<QQII", base, size, kind, 0) for base, size, kind in ranges)


def memory_map(ranges: list[tuple[int, int, int]]) -> bytes:
    """The Multiboot 2 memory map tag."""
    return tag(6, struct.pack("<II", 24, 0) + entries(ranges))


PC = [(0, 0x9FC00, 1), (0x9FC00, 0x400, 2), (0x10_0000, 0xFF0_0000, 1)]


def check_pc() -> None:
    """What both loaders tell of PC."""
    assert info.range_count == 3
    assert [(info.ranges[i].base, info.ranges[i].size, info.ranges[i].usable) for i in range(3)] == [
        (0, 0x9FC00, True), (0x9FC00, 0x400, False), (0x10_0000, 0xFF0_0000, True)]
    assert boot_info.usable_bytes() == 0x9FC00 + 0xFF0_0000
    assert boot_info.usable_end() == 0x1000_0000
    assert (info.bundle_hpa, info.bundle_size, info.module_count) == (0x20_0000, 0x1234, 1)
    assert text_at(address(info.cmdline)) == "quiet"
    assert info.has_rsdp and bytes(info.rsdp) == RSDP


def test_multiboot2() -> None:
    module = tag(3, struct.pack("<II", 0x20_0000, 0x20_1234) + b"bundle\0")
    map_memory(BASE, bytearray(multiboot2(tag(1, b"quiet\0"), module, memory_map(PC), tag(14, b"old"), tag(15, RSDP))))
    assert boot_info.init(MULTIBOOT2_MAGIC, BASE) == Status.OK
    assert info.loader == Loader.MULTIBOOT2
    check_pc()


def test_pvh() -> None:
    place = {"modules": 0x100, "cmdline": 0x200, "rsdp": 0x300, "memmap": 0x400}
    data = bytearray(0x1000)
    data[:56] = struct.pack("<IIIIQQQQII", PVH_MAGIC, 1, 0, 1, *(BASE + at for at in place.values()), 3, 0)
    data[0x100:0x120] = struct.pack("<QQQQ", 0x20_0000, 0x1234, 0, 0)
    data[0x200:0x206] = b"quiet\0"
    data[0x300:0x324] = RSDP
    data[0x400:0x448] = entries(PC)
    map_memory(BASE, data)
    assert boot_info.init(0, BASE) == Status.OK
    assert info.loader == Loader.PVH
    check_pc()


def test_neither_loader() -> None:
    map_memory(BASE, bytearray(64))
    assert boot_info.init(0x2BAD_B002, BASE) == Status.UNSUPPORTED


def test_a_long_command_line_is_cut() -> None:
    map_memory(BASE, bytearray(multiboot2(tag(1, b"x" * 1000 + b"\0"), memory_map(PC))))
    assert boot_info.init(MULTIBOOT2_MAGIC, BASE) == Status.OK
    assert text_at(address(info.cmdline)) == "x" * (boot_info.CMDLINE_BYTES - 1)


def test_ranges_beyond_the_table_are_counted_and_ranges_that_wrap_are_dropped() -> None:
    many = [(i << 20, 0x1000, 1) for i in range(boot_info.MOST_RANGES)]
    map_memory(BASE, bytearray(multiboot2(memory_map([(2**64 - 4096, 8192, 1), *many, (1, 1, 1), (2, 2, 1)]))))
    assert boot_info.init(MULTIBOOT2_MAGIC, BASE) == Status.OK
    assert info.range_count == boot_info.MOST_RANGES and info.ranges_ignored == 2


@settings(deadline=None)
@given(st.data())
def test_damaged_tags_are_not_read_beyond_their_end(data: st.DataObject) -> None:
    forget()
    good = bytearray(multiboot2(tag(1, b"quiet\0"), memory_map(PC), tag(15, RSDP)))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(8, len(good) - 1))] = data.draw(st.integers(0, 255))
    map_memory(BASE, good)  # a read beyond it is a Fault, which fails the test
    assert boot_info.init(MULTIBOOT2_MAGIC, BASE) in (Status.OK, Status.BAD_ARGUMENT, Status.UNSUPPORTED)
