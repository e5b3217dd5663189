"""The PVH loader: where things land, how the kernel starts, what is refused, and that no file can upset it."""
from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor.abi import VmConfig
from hypervisor.addresses import Gpa, Hpa
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.state import CS, GuestState
from hypervisor.bundle import Member
from hypervisor.lang import map_memory, unmap_memory
from hypervisor.loaders import pvh
from hypervisor.memory import guest_memory
from hypervisor.status import Status
from tests.linux.stock import PAGES, Stock

FILE, INITRD = 0x60_0000_0000, 0x61_0000_0000
MEMORY = PAGES << 12
CODE = bytes(range(256)) * 32
CMDLINE = b"console=ttyS0"


def note(name: bytes, kind: int, data: bytes) -> bytes:
    """One entry of a note segment."""
    return b"".join((struct.pack("<3I", len(name), len(data), kind), name, bytes(-len(name) % 4), data, bytes(-len(data) % 4)))


NOTES = note(b"GNU\0", 18, bytes(8)) + note(b"Linux\0", 18, bytes(5)) + note(b"Xen\0", 18, struct.pack("<Q", 0x200040))


def elf(at: int = 0x200000, size: int = 0x8000, notes: bytes = NOTES) -> bytes:
    """A kernel of one segment, with notes."""
    start = 64 + 2 * 56
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, at, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 7, start, at, at, len(CODE), size, 4096)
    head += struct.pack("<IIQQQQQQ", 4, 4, start + len(CODE), 0, 0, len(notes), len(notes), 4)
    return head + CODE + notes


def load(stock: Stock, kernel: bytes, initrd: bytes = b"") -> Status:
    """Load both from a bundle's members."""
    config, files = VmConfig(), (Member(), Member())
    for index, byte in enumerate(CMDLINE):
        config.cmdline[index] = byte
    for member, place, data in zip(files, (FILE, INITRD), (kernel, initrd), strict=True):
        member.hpa, member.size = Hpa(place), len(data)
        map_memory(place, bytearray(data) + bytearray(16))
    try:
        return pvh.load(stock.vm, config, *files)
    finally:
        unmap_memory(FILE)
        unmap_memory(INITRD)


def test_the_kernel_starts_as_the_protocol_says(stock: Stock) -> None:
    initrd = b"initrd" * 1000
    assert load(stock, elf(), initrd) == Status.OK
    regs, state = stock.vcpu.regs, GuestState()
    backend.read_state(stock.vcpu, state)
    assert (regs.rip, regs.rbx, state.cr0, state.cr4, state.efer) == (0x200040, pvh.INFO, 0x11, 0, 0)
    assert state.segments[CS].attributes == 0xC09B and state.segments[CS].limit == 0xFFFFFFFF
    assert stock.bytes_at(0x200000, 64) == CODE[:64] and stock.bytes_at(0x200000 + len(CODE), 64) == bytes(64)
    magic, version, flags, modules = struct.unpack("<4I", stock.bytes_at(pvh.INFO, 16))
    module_list, cmdline, rsdp, ranges, count = struct.unpack("<4QI", stock.bytes_at(pvh.INFO + 16, 36))
    assert (magic, version, flags, modules, count) == (0x336EC578, 1, 0, 1, 4)
    assert stock.bytes_at(cmdline, len(CMDLINE) + 1) == CMDLINE + b"\0" and stock.bytes_at(rsdp, 8) == b"RSD PTR "
    place, size = struct.unpack("<2Q", stock.bytes_at(module_list, 16))
    assert size == len(initrd) and place % 4096 == 0 and MEMORY - 8192 <= place and stock.bytes_at(place, size) == initrd
    table = [struct.unpack("<2QI", stock.bytes_at(ranges + 24 * index, 20)) for index in range(count)]
    assert [kind for _, _, kind in table] == [1, 2, 2, 1] and table[3][:2] == (0x100000, MEMORY - 0x100000)


def test_without_initial_file_system(stock: Stock) -> None:
    assert load(stock, elf()) == Status.OK
    assert stock.number_at(pvh.INFO + 12, 4) == 0


@pytest.mark.parametrize(("kernel", "initrd", "status"), [
    (elf(notes=NOTES[:-8]), 0, Status.UNSUPPORTED), (elf(notes=b""), 0, Status.UNSUPPORTED),
    (elf(notes=note(b"Xen\0", 18, b"\x00\x00\x10\x00")), 0, Status.BAD_ADDRESS), (elf(at=0x1000), 0, Status.BAD_ADDRESS),
    (elf(size=MEMORY), 0, Status.BAD_ADDRESS), (elf(), MEMORY, Status.BAD_ADDRESS),
    (elf(), MEMORY - 0x200000 - 0x7000, Status.BAD_ADDRESS), (elf()[:60], 0, Status.BAD_ARGUMENT)])
def test_what_cannot_be_booted_is_refused(stock: Stock, kernel: bytes, initrd: int, status: Status) -> None:
    assert load(stock, kernel, bytes(initrd)) == status


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_upsets_it(stock: Stock, data: st.DataObject) -> None:
    """Damaged headers and notes: a status, no fault, and nothing outside the VM's memory."""
    damaged = bytearray(elf())
    for _ in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.one_of(st.integers(0, 64 + 112), st.integers(len(damaged) - len(NOTES), len(damaged) - 1)))
        damaged[offset] = data.draw(st.integers(0, 255))
    load(stock, bytes(damaged[: data.draw(st.integers(0, len(damaged)))]) if data.draw(st.booleans()) else bytes(damaged))
    assert guest_memory.host_address(stock.vm, Gpa(MEMORY)) == 0
