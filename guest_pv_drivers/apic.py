"""The local APIC of this vCPU, by its register page. SDM vol. 3A, chapter 11."""
from typing import Annotated, Final

from guest_pv_drivers import idt
from guest_pv_drivers.events import MAX_VCPUS
from hypervisor.arch_x86.intrinsics import atomic_load_u64, load_u32, store_u32
from hypervisor.lang import address, struct, u32, u64

BASE: Final = 0xFEE00000
TPR: Final = 0x080
EOI: Final = 0x0B0
SVR: Final = 0x0F0
ICR: Final = 0x300
LVT_TIMER: Final = 0x320
TIMER_INITIAL: Final = 0x380
TIMER_DIVIDE: Final = 0x3E0
SVR_ENABLE: Final = 0x1FF
ICR_HIGH: Final = 0x310
ICR_SELF: Final = 1 << 18
ICR_OTHERS: Final = 3 << 18
LVT_PERIODIC: Final = 1 << 17
LVT_MASKED: Final = 1 << 16
DIVIDE_BY_1: Final = 11


@struct
class Taken:
    """Interrupts of APIC_VECTOR since the start, by vCPU."""

    count: Annotated[list[u64], MAX_VCPUS]


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


def interrupt(vcpu: u32) -> None:
    """APIC_VECTOR has come to this vCPU."""
    taken.count[vcpu] += 1
    write(EOI, 0)


def came_to(vcpu: u32) -> u64:
    """How many interrupts have come to a vCPU, perhaps another one."""
    return atomic_load_u64(address(taken.count) + 8 * u64(vcpu))


def interrupt_self() -> None:
    """Send APIC_VECTOR to this vCPU."""
    write(ICR, ICR_SELF | idt.APIC_VECTOR)


def interrupt_one(vcpu: u32) -> None:
    """Send it to a vCPU, whose APIC ID is its number."""
    write(ICR_HIGH, vcpu << 24)
    write(ICR, idt.APIC_VECTOR)


def interrupt_others() -> None:
    """Send it to all but this one."""
    write(ICR, ICR_OTHERS | idt.APIC_VECTOR)
