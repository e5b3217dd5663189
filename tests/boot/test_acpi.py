"""hypervisor/arch_x86/acpi.py over tables in fake memory, whole and damaged."""
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor.arch_x86 import acpi, hpet
from hypervisor.arch_x86.acpi import IsaInterrupt
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.boot_info import info
from hypervisor.lang import clear, map_memory, unmap_memory

BASE = 0x7FE_0000
ROOM = acpi.LONGEST_TABLE + 0x4000


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    forget()  # what a test of another file left behind
    yield
    forget()


def forget() -> None:
    """No tables."""
    machine.reset()
    clear(acpi.acpi)
    clear(info)
    try:
        unmap_memory(BASE)
    except KeyError:
        pass


def table(signature: bytes, body: bytes) -> bytes:
    """A table with a right checksum."""
    whole = bytearray(struct.pack("<4sIBB6s8sIII", signature, 36 + len(body), 1, 0, b"KRAIT ", b"TEST    ", 1, 0, 1) + body)
    whole[9] = -sum(whole) & 0xFF
    return bytes(whole)


MADT = struct.pack("<II", 0xFEE0_0000, 1) + (
    bytes([0, 8, 0, 0, 1, 0, 0, 0])
    + struct.pack("<BBBBII", 1, 12, 0, 0, 0xFEC0_1000, 0)
    + struct.pack("<BBBBII", 1, 12, 1, 0, 0xFEC0_2000, 24)
    + struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0)
    + struct.pack("<BBBBIH", 2, 10, 0, 9, 20, 0xF))
S5 = b"\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00"
DSDT = b"\x10\x20_S5_ is also a text" + S5 + b"\x08XXXX\x00" * 4


def firmware(wide: bool) -> bytearray:
    """All tables, with an XSDT or an RSDT, and info.rsdp pointing at them."""
    memory = bytearray(ROOM)
    fadt = bytearray(80)
    struct.pack_into("<I", fadt, acpi.FADT_DSDT - 36, BASE + 0x2000)
    struct.pack_into("<I", fadt, acpi.FADT_PM1A_CNT_BLK - 36, 0x604)
    places = {0x1000: table(b"APIC", MADT), 0x1800: table(b"FACP", bytes(fadt)), 0x2000: table(b"DSDT", DSDT)}
    pointers = struct.pack("<QQ" if wide else "<II", BASE + 0x1800, BASE + 0x1000)
    places[0x100] = table(b"XSDT" if wide else b"RSDT", pointers)
    for offset, data in places.items():
        memory[offset:offset + len(data)] = data
    rsdp = struct.pack("<8sB6sBIIQB3s", b"RSD PTR ", 0, b"KRAIT ", 2 if wide else 0, 0 if wide else BASE + 0x100, 36,
                       BASE + 0x100 if wide else 0, 0, b"")
    for index, byte in enumerate(rsdp):
        info.rsdp[index] = byte
    info.has_rsdp = True
    return memory


@pytest.mark.parametrize("wide", [False, True])
def test_interrupts_and_power_off_are_found(wide: bool) -> None:
    map_memory(BASE, firmware(wide))
    acpi.init()
    assert (acpi.acpi.ioapic_base, acpi.acpi.ioapic_gsi) == (0xFEC0_1000, 0)
    found = IsaInterrupt()
    acpi.isa_interrupt(4, found)
    assert (found.gsi, found.active_low, found.level) == (4, False, False)
    acpi.isa_interrupt(9, found)
    assert (found.gsi, found.active_low, found.level) == (20, True, True)
    acpi.isa_interrupt(0, found)
    assert (found.gsi, found.active_low, found.level) == (2, False, False)
    acpi.power_off()
    assert machine.ports_written == [(0x604, 2, acpi.SLP_EN | 5 << acpi.SLP_TYP_SHIFT)]


def test_a_machine_without_tables_is_a_plain_pc() -> None:
    acpi.init()
    found = IsaInterrupt()
    acpi.isa_interrupt(4, found)
    acpi.power_off()
    assert acpi.acpi.ioapic_base == 0xFEC0_0000 and found.gsi == 4 and machine.ports_written == []


@settings(deadline=None)
@given(st.data())
def test_damage_is_not_believed_and_nothing_beyond_the_tables_is_read(data: st.DataObject) -> None:
    forget()
    memory = firmware(data.draw(st.booleans()))
    start = data.draw(st.sampled_from([0x100, 0x1000, 0x1800, 0x2000]))
    offset = data.draw(st.integers(0, 60))
    old = memory[start + offset]
    memory[start + offset] = data.draw(st.integers(0, 255))
    map_memory(BASE, memory)  # a read outside is a Fault
    acpi.init()
    acpi.isa_interrupt(4, IsaInterrupt())
    if memory[start + offset] != old and start == 0x1000 and not 4 <= offset < 8:
        assert acpi.acpi.madt == 0  # its checksum is wrong


HPET_BASE = 0xFED0_0000


def with_hpet(capabilities: int) -> bytearray:
    """Tables that name an HPET, whose registers are mapped; the registers."""
    memory = firmware(True)
    body = struct.pack("<IBBBBQBHB", 0x8086_A201, 0, 64, 0, 0, HPET_BASE, 0, 0, 0)
    hpet_table = table(b"HPET", body)
    memory[0x3000:0x3000 + len(hpet_table)] = hpet_table
    root = table(b"XSDT", struct.pack("<QQQ", BASE + 0x1800, BASE + 0x1000, BASE + 0x3000))
    memory[0x100:0x100 + len(root)] = root
    map_memory(BASE, memory)
    registers = bytearray(0x400)
    struct.pack_into("<Q", registers, hpet.CAPABILITIES, capabilities)
    map_memory(HPET_BASE, registers)
    return registers


@pytest.mark.parametrize(("capabilities", "found"), [
    (10_000_000 << 32 | 1 << 13, True), (10_000_000 << 32, False), (1 << 13, False), (100_000_001 << 32 | 1 << 13, False)])
def test_an_hpet_counts_nanoseconds(capabilities: int, found: bool) -> None:
    """One that counts in 32 bits, or names no period, is left alone."""
    registers = with_hpet(capabilities)
    try:
        acpi.init()
        hpet.init()
        assert hpet.is_there() == found and registers[hpet.CONFIGURATION] == (1 if found else 0)
        if found:
            struct.pack_into("<Q", registers, hpet.MAIN_COUNTER, 6_000_000_000)
            assert hpet.nanoseconds() == 60_000_000_000
    finally:
        unmap_memory(HPET_BASE)
        clear(hpet.hpet)
