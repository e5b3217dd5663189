"""The local APIC of this vCPU, by its register page. SDM vol. 3A, chapter 11."""
from typing import Final

from guest_pv_drivers import idt
from hypervisor.arch_x86.intrinsics import load_u32, store_u32
from hypervisor.lang import struct, u32, u64

BASE: Final = 0xFEE00000
TPR: Final = 0x080
EOI: Final = 0x0B0
SVR: Final = 0x0F0
ICR: Final = 0x300
LVT_TIMER: Final = 0x320
TIMER_INITIAL: Final = 0x380
TIMER_DIVIDE: Final = 0x3E0
SVR_ENABLE: Final = 0x1FF
ICR_SELF: Final = 1 << 18
LVT_PERIODIC: Final = 1 << 17
LVT_MASKED: Final = 1 << 16
DIVIDE_BY_1: Final = 11


@struct
class Taken:
    """Interrupts of APIC_VECTOR since the start."""

    count: u64


taken: Final = Taken()


def read(register: u32) -> u32:
    """A register by its offset."""
    return load_u32(BASE + register)


def write(register: u32, value: u32) -> None:
    """Likewise."""
    store_u32(BASE + register, value)


def enable() -> None:
    """Let it take fixed interrupts."""
    write(SVR, SVR_ENABLE)


def interrupt() -> None:
    """APIC_VECTOR has come."""
    taken.count += 1
    write(EOI, 0)


def interrupt_self() -> None:
    """Send APIC_VECTOR to this vCPU."""
    write(ICR, ICR_SELF | idt.APIC_VECTOR)
