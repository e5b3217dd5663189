"""The few ACPI tables Krait reads: MADT for interrupts, FADT for power-off, HPET for its address. There is no AML interpreter.

ACPI 6.5: 5.2.5 RSDP, 5.2.7 RSDT, 5.2.8 XSDT, 5.2.9 FADT, 5.2.12 MADT. Tables whose checksum is wrong are not believed.
"""
from typing import Final

from hypervisor.arch_x86.intrinsics import load_u8, load_u16, load_u32, load_u64, outw
from hypervisor.boot_info import info
from hypervisor.lang import address, char_at, struct, u8, u16, u32, u64

HEADER_BYTES: Final = 36
LONGEST_TABLE: Final = 0x10_0000
MAPPED_BELOW: Final[u64] = 0x1_0000_0000  # tables above 4 GiB are not looked at

MADT_LAPIC: Final = 0
MADT_LAPIC_BYTES: Final = 8
MADT_IOAPIC: Final = 1
MADT_IOAPIC_BYTES: Final = 12
MADT_OVERRIDE: Final = 2
MADT_OVERRIDE_BYTES: Final = 10
MADT_X2APIC: Final = 9
MADT_X2APIC_BYTES: Final = 16
MADT_ENABLED: Final = 1  # flag of a CPU: it may be used

DEFAULT_IOAPIC: Final = 0xFEC0_0000

FADT_DSDT: Final = 40
FADT_PM1A_CNT_BLK: Final = 64
SLP_TYP_SHIFT: Final = 10
SLP_EN: Final = 0x2000
NAME_OP: Final = 0x08  # AML, ACPI 6.5 20.3
PACKAGE_OP: Final = 0x12
BYTE_PREFIX: Final = 0x0A


@struct
class IsaInterrupt:
    """Where an ISA interrupt arrives."""

    gsi: u32
    active_low: bool
    level: bool


@struct
class Acpi:
    """What the tables said."""

    madt: u64  # 0: none
    fadt: u64
    hpet: u64
    ioapic_base: u64
    ioapic_gsi: u32
    power_off_port: u16  # 0: not known how
    power_off_value: u16


acpi: Final = Acpi()


def init() -> None:
    """Find the tables. A machine without them gets the PC's defaults."""
    acpi.ioapic_base = DEFAULT_IOAPIC
    if not info.has_rsdp or not _is_text(address(info.rsdp), "RSD PTR "):
        return
    acpi.madt = _find("APIC")
    acpi.fadt = _find("FACP")
    acpi.hpet = _find("HPET")
    entry = _next_madt(0, MADT_IOAPIC)
    if entry != 0:  # the first: the one ISA interrupts are wired to on every PC
        acpi.ioapic_base = load_u32(entry + 4)
        acpi.ioapic_gsi = load_u32(entry + 8)
    _find_power_off()


def isa_interrupt(irq: u8, result: IsaInterrupt) -> None:
    """Where an ISA interrupt arrives: identity, edge, active high unless the MADT overrides it."""
    result.gsi = irq
    result.active_low = False
    result.level = False
    entry = _next_madt(0, MADT_OVERRIDE)
    while entry != 0:
        if load_u8(entry + 3) == irq:
            flags = load_u16(entry + 8)
            result.gsi = load_u32(entry + 4)
            result.active_low = flags & 3 == 3
            result.level = flags & 0xC == 0xC
        entry = _next_madt(entry, MADT_OVERRIDE)


def next_cpu(after: u64) -> u64:
    """The MADT's entry of the next CPU that may be used, after that at `after` (0: the first); 0 if there is none.

    First come those of 8 bits of APIC ID, then those of 32.
    """
    place = after
    if place == 0 or load_u8(place) == MADT_LAPIC:
        place = _next_madt(place, MADT_LAPIC)
        while place != 0:
            if load_u32(place + 4) & MADT_ENABLED != 0:
                return place
            place = _next_madt(place, MADT_LAPIC)
    place = _next_madt(place, MADT_X2APIC)
    while place != 0 and load_u32(place + 8) & MADT_ENABLED == 0:
        place = _next_madt(place, MADT_X2APIC)
    return place


def cpu_apic_id(entry: u64) -> u32:
    """The APIC ID of the CPU that next_cpu found."""
    return load_u8(entry + 3) if load_u8(entry) == MADT_LAPIC else load_u32(entry + 4)


def _find_power_off() -> None:
    """Port and value that enter S5. Without an interpreter: the one place in the DSDT where `_S5_` is named a package."""
    if acpi.fadt == 0:
        return
    dsdt: u64 = load_u32(acpi.fadt + FADT_DSDT)
    if not _is_valid(dsdt):
        return
    for place in range(dsdt + HEADER_BYTES, dsdt + load_u32(dsdt + 4) - 10):
        if load_u8(place) == NAME_OP and load_u8(place + 5) == PACKAGE_OP and _is_text(place + 1, "_S5_"):
            element = place + 8  # behind the lengths of package and elements
            kind = load_u8(element + 1) if load_u8(element) == BYTE_PREFIX else load_u8(element)
            acpi.power_off_port = u16(load_u32(acpi.fadt + FADT_PM1A_CNT_BLK))
            acpi.power_off_value = u16(SLP_EN | (kind & 7) << SLP_TYP_SHIFT)
            return


def power_off() -> None:
    """Enter S5, if it is known how; returns if nothing happens."""
    if acpi.power_off_port != 0:
        outw(acpi.power_off_port, acpi.power_off_value)


def _next_madt(after: u64, kind: u32) -> u64:
    """The next entry of a kind after that at `after` (0: the first); 0 if there is none."""
    if acpi.madt == 0:
        return 0
    end = acpi.madt + load_u32(acpi.madt + 4)
    entry = acpi.madt + HEADER_BYTES + 8 if after == 0 else after + load_u8(after + 1)
    while entry + 2 <= end and load_u8(entry + 1) >= 2 and entry + load_u8(entry + 1) <= end:
        if load_u8(entry) == kind and load_u8(entry + 1) >= _least_bytes(kind):
            return entry
        entry += load_u8(entry + 1)
    return 0


def _least_bytes(kind: u32) -> u8:
    """The length of a MADT entry; a longer one begins in the same way."""
    match kind:
        case 0:
            return MADT_LAPIC_BYTES
        case 1:
            return MADT_IOAPIC_BYTES
        case 9:
            return MADT_X2APIC_BYTES
        case _:
            return MADT_OVERRIDE_BYTES


def _find(signature: str) -> u64:
    """The address of a valid table, by XSDT or RSDT; 0 if there is none."""
    rsdp = address(info.rsdp)
    wide = info.rsdp[15] >= 2 and load_u64(rsdp + 24) != 0
    root: u64 = load_u64(rsdp + 24) if wide else load_u32(rsdp + 16)
    if not _is_valid(root):
        return 0
    width: u64 = 8 if wide else 4
    for i in range((load_u32(root + 4) - HEADER_BYTES) // width):
        place = root + HEADER_BYTES + i * width
        table: u64 = load_u64(place) if wide else load_u32(place)
        if _is_valid(table) and _is_text(table, signature):
            return table
    return 0


def _is_valid(table: u64) -> bool:
    """Whether the table is where we can read it and its bytes add up to zero."""
    if table < 4096 or table > MAPPED_BELOW - LONGEST_TABLE:
        return False
    length = load_u32(table + 4)
    if length < HEADER_BYTES or length > LONGEST_TABLE:
        return False
    total: u32 = 0
    for i in range(length):
        total = (total + load_u8(table + i)) & 0xFF
    return total == 0


def _is_text(place: u64, text: str) -> bool:
    i: u32 = 0
    while char_at(text, i) != 0:
        if load_u8(place + i) != char_at(text, i):
            return False
        i += 1
    return True
