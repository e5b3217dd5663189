"""The IDT: one interrupt gate for each stub of start.S. SDM vol. 3A 6.14.1 (rev. 084)."""
from typing import Annotated, Final

from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import address, link_address, struct, u16, u64

CODE_SELECTOR: Final = 8  # in the GDT of start.S
INTERRUPT_GATE: Final[u64] = 0x8E00  # present, DPL 0, 64-bit interrupt gate (IF is cleared)
STUB_BYTES: Final = 16
EVENT_VECTOR: Final = 32  # the hypervisor's events
APIC_VECTOR: Final = 33  # the local APIC's timer and IPIs
VECTORS: Final = 34


@struct(packed=True)
class TableRegister:
    """Operand of LIDT."""

    limit: u16
    base: u64


@struct(align=16)
class Idt:
    """Two words a gate."""

    gates: Annotated[list[u64], 68]
    register: TableRegister


idt: Final = Idt()


def init() -> None:
    """Take exceptions and events through our own stubs."""
    stubs = link_address("trap_stubs")
    for vector in range(VECTORS):
        target = stubs + u64(vector) * STUB_BYTES
        idt.gates[2 * vector] = (target & 0xFFFF) | CODE_SELECTOR << 16 | INTERRUPT_GATE << 32 | (target >> 16 & 0xFFFF) << 48
        idt.gates[2 * vector + 1] = target >> 32
    idt.register.limit = VECTORS * 16 - 1
    idt.register.base = address(idt.gates)
    use()


def use() -> None:
    """Let this vCPU take traps by it. Another one than the first calls it after init."""
    intrinsics.lidt(address(idt.register))
