"""The IDT of the hypervisor, and GDT and TSS of each CPU: one code and one data segment, and stacks of their own for NMI, #DF, #MC.

Intel SDM vol. 3A 3.4.5, 6.14, 7.7; AMD APM vol. 2 4.7, 8.9.
"""
from typing import Annotated, Final

from hypervisor.arch_x86 import stacks
from hypervisor.arch_x86.intrinsics import lgdt, lidt, ltr
from hypervisor.cpu import cpus
from hypervisor.lang import address, at, link_address, sizeof, struct, u16, u32, u64
from hypervisor.model import MAX_CPUS

CODE_SELECTOR: Final[u16] = 0x08  # as in boot.S
DATA_SELECTOR: Final[u16] = 0x10
TSS_SELECTOR: Final[u16] = 0x18
GDT_ENTRIES: Final = 5

CODE_DESCRIPTOR: Final[u64] = 0x00AF_9B00_0000_FFFF  # present, DPL 0, 64-bit, accessed
DATA_DESCRIPTOR: Final[u64] = 0x00CF_9300_0000_FFFF
TSS_AVAILABLE: Final[u64] = 0x89 << 40  # present, DPL 0, 64-bit TSS

VECTORS: Final = 0x50  # as many as entry.S has stubs
STUB_BYTES: Final = 16
INTERRUPT_GATE: Final[u64] = 0x8E << 40  # present, DPL 0, interrupts masked on entry

NMI: Final = 2
DOUBLE_FAULT: Final = 8
MACHINE_CHECK: Final = 18


@struct(packed=True)
class Tss:
    """64-bit task state segment."""

    reserved0: u32
    rsp: Annotated[list[u64], 3]
    reserved1: u64
    ist: Annotated[list[u64], 7]  # IST1 is element 0
    reserved2: u64
    reserved3: u16
    io_map_base: u16


@struct(packed=True)
class TableDescriptor:
    """Operand of LGDT and LIDT."""

    limit: u16
    base: u64


@struct(packed=True)
class CpuTables:
    """What stands at the beginning of a CPU's area (stacks.py); read-only once paging is final."""

    cpu: u64  # address of its Cpu: intrinsics.current_cpu
    gdt: Annotated[list[u64], GDT_ENTRIES]
    tss: Tss


@struct(align=4096)
class Tables:
    """The IDT, of all CPUs; page-aligned, read-only once paging is final."""

    idt: Annotated[list[u64], 2 * VECTORS]


tables: Final = Tables()


def init() -> None:
    """Fill the tables of all CPUs and load this one's, the boot CPU's: from here exceptions are decoded, and this_cpu is known."""
    for vector in range(VECTORS):
        _set_gate(vector, _ist_of(vector))
    for cpu in range(MAX_CPUS):
        own = at(CpuTables, stacks.area(cpu))
        own.cpu = address(cpus[cpu])
        cpus[cpu].id = u32(cpu)
        own.gdt[1] = CODE_DESCRIPTOR
        own.gdt[2] = DATA_DESCRIPTOR
        _set_tss(cpu, own)
    load(0)


def load(cpu: u64) -> None:
    """Load the tables of CPU `cpu`, which is this one, once: LTR writes to its GDT. Selectors stay those of boot.S."""
    own = at(CpuTables, stacks.area(cpu))
    descriptor = TableDescriptor()
    descriptor.base = address(own.gdt)
    descriptor.limit = GDT_ENTRIES * 8 - 1
    lgdt(address(descriptor))
    ltr(TSS_SELECTOR)
    descriptor.base = address(tables.idt)
    descriptor.limit = 16 * VECTORS - 1
    lidt(address(descriptor))


def cut_behind_double_fault() -> None:
    """Let the IDT end behind #DF, so that a later exception cannot be delivered and becomes one (debug images)."""
    descriptor = TableDescriptor()
    descriptor.base = address(tables.idt)
    descriptor.limit = 16 * (DOUBLE_FAULT + 1) - 1
    lidt(address(descriptor))


def _set_tss(cpu: u64, own: CpuTables) -> None:
    tss = own.tss
    tss.rsp[0] = stacks.top(cpu, 0)
    for i in range(stacks.STACKS - 1):
        tss.ist[i] = stacks.top(cpu, i + 1)
    tss.io_map_base = u16(sizeof(Tss))  # beyond the limit: no map
    base = address(tss)
    limit: u64 = sizeof(Tss) - 1
    own.gdt[3] = limit | (base & 0xFFFFFF) << 16 | TSS_AVAILABLE | (base >> 24 & 0xFF) << 56
    own.gdt[4] = base >> 32


def _ist_of(vector: u64) -> u64:
    if vector == NMI:
        return stacks.IST_NMI
    if vector == DOUBLE_FAULT:
        return stacks.IST_DOUBLE_FAULT
    if vector == MACHINE_CHECK:
        return stacks.IST_MACHINE_CHECK
    return 0


def _set_gate(vector: u64, ist: u64) -> None:
    entry = link_address("trap_stubs") + STUB_BYTES * vector
    low = entry & 0xFFFF | CODE_SELECTOR << 16 | ist << 32 | INTERRUPT_GATE | (entry >> 16 & 0xFFFF) << 48
    tables.idt[2 * vector] = low
    tables.idt[2 * vector + 1] = entry >> 32
