"""ACPI tables of a VM with a platform: RSDP, XSDT, FADT, FACS, MADT, HPET, and a DSDT (dsdt.asl) with the PCI bus and how to switch off.

ACPI 6.4, 5.2 (tables), 4.8 (fixed hardware), 20 (AML). They stand in the reserved area below 1 MiB, where the BIOS of a PC
has them, and say what devices/platform.py does: local APICs, I/O APIC, HPET, PM timer, reset by port CF9, S5, the PCI bus behind CF8,
nothing else.
"""
from typing import Annotated, Final

from hypervisor.addresses import Gpa, Hva
from hypervisor.arch_x86.intrinsics import load_u8
from hypervisor.devices import hpet, ioapic, lapic
from hypervisor.devices.platform import IRQ_ACPI, IRQ_TIMER, PM_BASE
from hypervisor.lang import address, clear, offsetof, sizeof, struct, u8, u16, u32, u64, wrap_u8
from hypervisor.memory import guest_memory
from hypervisor.model import MAX_VCPUS_PER_VM, Vm
from hypervisor.status import Status

AREA: Final[u64] = 0xE0000  # the RSDP is searched from here on; it is also named in boot_params
RSDP_SIGNATURE: Final[u64] = 0x2052_5450_2044_5352  # "RSD PTR "
SIGNATURE_XSDT: Final[u32] = 0x5444_5358
SIGNATURE_FADT: Final[u32] = 0x5043_4146  # "FACP"
SIGNATURE_FACS: Final[u32] = 0x5343_4146
SIGNATURE_DSDT: Final[u32] = 0x5444_5344
SIGNATURE_MADT: Final[u32] = 0x4349_5041  # "APIC"
SIGNATURE_HPET: Final[u32] = 0x5445_5048
SPACE_MEMORY: Final = 0
# MADT (5.2.12)
PCAT_COMPAT: Final = 1  # there are two 8259
ENTRY_LOCAL_APIC: Final = 0
ENTRY_IO_APIC: Final = 1
ENTRY_OVERRIDE: Final = 2
ENTRY_LOCAL_NMI: Final = 4
PROCESSOR_ENABLED: Final = 1
LEVEL_ACTIVE_HIGH: Final = 0xD
ALL_PROCESSORS: Final = 0xFF
LINT_NMI: Final = 1
HPET_TICK_MIN: Final = 100  # of the counter, for a periodic timer that loses nothing
OEM_ID: Final[u64] = 0x2054_4941_524B  # "KRAIT "
OEM_TABLE_ID: Final[u64] = 0x2020_2054_4941_524B  # "KRAIT   "
SPACE_IO: Final = 1
# FADT flags: WBINVD, C1 on all CPUs, no power and sleep buttons, RTC does not wake, reset register.
FADT_FLAGS: Final = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10
LEGACY_DEVICES: Final = 1  # IAPC_BOOT_ARCH; bit 1 clear: do not look for a keyboard
RESET_PORT: Final = 0xCF9
RESET_VALUE: Final = 6
CENTURY_INDEX: Final = 0x32
DSDT_BYTES: Final = 216
# dsdt.asl, compiled
DSDT_AML: Final[Annotated[list[u8], 216]] = [
    0x08, 0x5F, 0x53, 0x35, 0x5F, 0x12, 0x08, 0x04, 0x0A, 0x05, 0x0A, 0x05, 0x00, 0x00, 0x10, 0x49, 0x0C, 0x5F, 0x53, 0x42,
    0x5F, 0x5B, 0x82, 0x41, 0x0C, 0x50, 0x43, 0x49, 0x30, 0x08, 0x5F, 0x48, 0x49, 0x44, 0x0C, 0x41, 0xD0, 0x0A, 0x03, 0x08,
    0x5F, 0x55, 0x49, 0x44, 0x00, 0x08, 0x5F, 0x43, 0x52, 0x53, 0x11, 0x48, 0x04, 0x0A, 0x44, 0x88, 0x0D, 0x00, 0x02, 0x0C,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x47, 0x01, 0xF8, 0x0C, 0xF8, 0x0C, 0x01, 0x08, 0x88,
    0x0D, 0x00, 0x01, 0x0C, 0x03, 0x00, 0x00, 0x00, 0xC0, 0xFF, 0xCF, 0x00, 0x00, 0x00, 0x10, 0x87, 0x17, 0x00, 0x00, 0x0C,
    0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xEF, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x10, 0x79, 0x00, 0x08, 0x5F, 0x50, 0x52, 0x54, 0x12, 0x47, 0x05, 0x07, 0x12, 0x0B, 0x04, 0x0C, 0xFF, 0xFF, 0x01, 0x00,
    0x00, 0x00, 0x0A, 0x0B, 0x12, 0x0B, 0x04, 0x0C, 0xFF, 0xFF, 0x02, 0x00, 0x00, 0x00, 0x0A, 0x0A, 0x12, 0x0B, 0x04, 0x0C,
    0xFF, 0xFF, 0x03, 0x00, 0x00, 0x00, 0x0A, 0x0B, 0x12, 0x0B, 0x04, 0x0C, 0xFF, 0xFF, 0x04, 0x00, 0x00, 0x00, 0x0A, 0x0A,
    0x12, 0x0B, 0x04, 0x0C, 0xFF, 0xFF, 0x05, 0x00, 0x00, 0x00, 0x0A, 0x0B, 0x12, 0x0B, 0x04, 0x0C, 0xFF, 0xFF, 0x06, 0x00,
    0x00, 0x00, 0x0A, 0x0A, 0x12, 0x0B, 0x04, 0x0C, 0xFF, 0xFF, 0x07, 0x00, 0x00, 0x00, 0x0A, 0x0B]


@struct(packed=True)
class Header:
    """DESCRIPTION_HEADER, 36 bytes."""

    signature: u32
    length: u32
    revision: u8
    checksum: u8
    oem_id: Annotated[list[u8], 6]
    oem_table_id: u64
    oem_revision: u32
    creator_id: u32
    creator_revision: u32


@struct(packed=True)
class Rsdp:
    """Root system description pointer, 36 bytes."""

    signature: u64
    checksum: u8  # of the first 20 bytes
    oem_id: Annotated[list[u8], 6]
    revision: u8
    rsdt: u32
    length: u32
    xsdt: u64
    extended_checksum: u8
    reserved: Annotated[list[u8], 3]


@struct(packed=True)
class Xsdt:
    """With three entries."""

    header: Header
    fadt: u64
    madt: u64
    hpet: u64


@struct(packed=True)
class GenericAddress:
    """Generic address structure, 12 bytes."""

    space: u8
    bits: u8
    offset: u8
    access: u8
    address: u64


@struct(packed=True)
class Fadt:
    """Fixed ACPI description table, revision 3, 244 bytes."""

    header: Header
    firmware_control: u32
    dsdt: u32
    reserved0: u8
    profile: u8
    sci_int: u16
    smi_cmd: u32
    enable_values: u32
    pm1a_event: u32
    pm1b_event: u32
    pm1a_control: u32
    pm1b_control: u32
    pm2_control: u32
    pm_timer: u32
    gpe0: u32
    gpe1: u32
    pm1_event_length: u8
    pm1_control_length: u8
    pm2_control_length: u8
    pm_timer_length: u8
    gpe_lengths: u32  # and GPE1_BASE, CST_CNT
    c2_latency: u16
    c3_latency: u16
    flush: u32
    duty: u16
    day_alarm: u8
    month_alarm: u8
    century: u8
    boot_architecture: u16
    reserved1: u8
    flags: u32
    reset_register: GenericAddress
    reset_value: u8
    reserved2: Annotated[list[u8], 3]
    x_firmware_control: u64
    x_dsdt: u64
    x_blocks: Annotated[list[u8], 96]  # eight generic addresses, unused: the 32-bit ones hold


@struct(packed=True)
class Facs:
    """Firmware ACPI control structure, 64 bytes."""

    signature: u32
    length: u32
    rest: Annotated[list[u8], 24]
    version: u8
    reserved: Annotated[list[u8], 31]


@struct(packed=True)
class Dsdt:
    """Differentiated system description table."""

    header: Header
    aml: Annotated[list[u8], 216]


@struct(packed=True)
class LocalApic:
    """Processor local APIC structure, 8 bytes."""

    type: u8
    length: u8
    processor: u8
    apic_id: u8
    flags: u32


@struct(packed=True)
class IoApicEntry:
    """I/O APIC structure, 12 bytes."""

    type: u8
    length: u8
    id: u8
    reserved: u8
    address: u32
    first_interrupt: u32


@struct(packed=True)
class Override:
    """Interrupt source override structure, 10 bytes."""

    type: u8
    length: u8
    bus: u8
    source: u8
    interrupt: u32
    flags: u16


@struct(packed=True)
class LocalNmi:
    """Local APIC NMI structure, 6 bytes."""

    type: u8
    length: u8
    processor: u8
    flags: u16
    lint: u8


@struct(packed=True)
class Madt:
    """Multiple APIC description table; as many of `processors` as there are vCPUs belong to it."""

    header: Header
    local_apic: u32
    flags: u32
    io_apic: IoApicEntry
    timer: Override
    sci: Override
    nmi: LocalNmi
    processors: Annotated[list[LocalApic], 64]


@struct(packed=True)
class HpetTable:
    """IA-PC HPET description table, 56 bytes."""

    header: Header
    block_id: u32
    address: GenericAddress
    number: u8
    tick_min: u16
    protection: u8


@struct(align=64)
class Tables:
    """All of them as they lie in the guest's memory from AREA on."""

    rsdp: Rsdp
    pad0: Annotated[list[u8], 28]
    facs: Facs  # 64-byte aligned
    xsdt: Xsdt
    fadt: Fadt
    dsdt: Dsdt
    hpet: HpetTable
    madt: Madt


staged: Final = Tables()


def write(vm: Vm) -> Status:
    """Put the tables into the VM's memory at AREA; BAD_ADDRESS, NO_MEMORY."""
    clear(staged)
    fill_rsdp(staged.rsdp)
    staged.facs.signature = SIGNATURE_FACS
    staged.facs.length = sizeof(Facs)
    staged.facs.version = 1
    staged.xsdt.fadt = AREA + offsetof(Tables, "fadt")
    staged.xsdt.madt = AREA + offsetof(Tables, "madt")
    staged.xsdt.hpet = AREA + offsetof(Tables, "hpet")
    fill_fadt(staged.fadt)
    fill_hpet(staged.hpet)
    fill_madt(staged.madt, vm.vcpu_count)
    for index in range(DSDT_BYTES):
        staged.dsdt.aml[index] = DSDT_AML[index]
    finish(staged.xsdt.header, SIGNATURE_XSDT, 1, sizeof(Xsdt))
    finish(staged.fadt.header, SIGNATURE_FADT, 3, sizeof(Fadt))
    finish(staged.dsdt.header, SIGNATURE_DSDT, 2, sizeof(Dsdt))
    finish(staged.hpet.header, SIGNATURE_HPET, 1, sizeof(HpetTable))
    unused: u64 = (MAX_VCPUS_PER_VM - vm.vcpu_count) * sizeof(LocalApic)
    finish(staged.madt.header, SIGNATURE_MADT, 3, u32(sizeof(Madt) - unused))
    return guest_memory.load_image(vm, Gpa(AREA), Hva(address(staged)), sizeof(Tables))


def fill_rsdp(rsdp: Rsdp) -> None:
    """Revision 2; both checksums."""
    rsdp.signature = RSDP_SIGNATURE
    for index in range(6):
        rsdp.oem_id[index] = u8(OEM_ID >> (8 * index & 63) & 0xFF)
    rsdp.revision = 2
    rsdp.length = sizeof(Rsdp)
    rsdp.xsdt = AREA + offsetof(Tables, "xsdt")
    rsdp.checksum = checksum(address(rsdp), 20)
    rsdp.extended_checksum = checksum(address(rsdp), sizeof(Rsdp))


def fill_fadt(fadt: Fadt) -> None:
    """What acpi_pm, pm_timer and the reset port are."""
    fadt.firmware_control = u32(AREA + offsetof(Tables, "facs"))
    fadt.dsdt = u32(AREA + offsetof(Tables, "dsdt"))
    fadt.x_dsdt = AREA + offsetof(Tables, "dsdt")
    fadt.sci_int = IRQ_ACPI
    fadt.pm1a_event = PM_BASE
    fadt.pm1a_control = PM_BASE + 4
    fadt.pm_timer = PM_BASE + 8
    fadt.pm1_event_length = 4
    fadt.pm1_control_length = 2
    fadt.pm_timer_length = 4
    fadt.c2_latency = 0xFFFF  # no C2, no C3
    fadt.c3_latency = 0xFFFF
    fadt.century = CENTURY_INDEX
    fadt.boot_architecture = LEGACY_DEVICES
    fadt.flags = FADT_FLAGS
    fadt.reset_register.space = SPACE_IO
    fadt.reset_register.bits = 8
    fadt.reset_register.access = 1
    fadt.reset_register.address = RESET_PORT
    fadt.reset_value = RESET_VALUE


def fill_hpet(table: HpetTable) -> None:
    """What devices/hpet.py is."""
    table.block_id = u32(hpet.CAPABILITIES & 0xFFFF_FFFF)
    table.address.space = SPACE_MEMORY
    table.address.bits = 64
    table.address.address = hpet.BASE
    table.tick_min = HPET_TICK_MIN


def fill_madt(table: Madt, vcpus: u32) -> None:
    """What devices/lapic.py and ioapic.py are: the interval timer is at pin 2, ACPI's interrupt is a level."""
    table.local_apic = u32(lapic.BASE)
    table.flags = PCAT_COMPAT
    table.io_apic.type = ENTRY_IO_APIC
    table.io_apic.length = sizeof(IoApicEntry)
    table.io_apic.address = u32(ioapic.BASE)
    fill_override(table.timer, IRQ_TIMER, ioapic.PIN_TIMER, 0)
    fill_override(table.sci, IRQ_ACPI, IRQ_ACPI, LEVEL_ACTIVE_HIGH)
    table.nmi.type = ENTRY_LOCAL_NMI
    table.nmi.length = sizeof(LocalNmi)
    table.nmi.processor = ALL_PROCESSORS
    table.nmi.lint = LINT_NMI
    for index in range(vcpus):
        entry = table.processors[index]
        entry.type = ENTRY_LOCAL_APIC
        entry.length = sizeof(LocalApic)
        entry.processor = u8(index & 0xFF)
        entry.apic_id = u8(index & 0xFF)
        entry.flags = PROCESSOR_ENABLED


def fill_override(to: Override, irq: u8, pin: u32, flags: u16) -> None:
    """ISA interrupt `irq` comes at `pin`."""
    to.type = ENTRY_OVERRIDE
    to.length = sizeof(Override)
    to.source = irq
    to.interrupt = pin
    to.flags = flags


def finish(header: Header, signature: u32, revision: u8, length: u32) -> None:
    """Fill in a header; its table is complete."""
    header.signature = signature
    header.length = length
    header.revision = revision
    for index in range(6):
        header.oem_id[index] = u8(OEM_ID >> (8 * index & 63) & 0xFF)
    header.oem_table_id = OEM_TABLE_ID
    header.oem_revision = 1
    header.creator_id = u32(OEM_TABLE_ID & 0xFFFF_FFFF)
    header.creator_revision = 1
    header.checksum = checksum(address(header), length)


def checksum(place: u64, length: u64) -> u8:
    """The byte that makes the sum of all bytes zero; the checksum's own place is zero now."""
    total: u64 = 0
    for index in range(length):
        total += load_u8(place + index)
    return wrap_u8(0 - total)
