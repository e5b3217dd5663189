"""The PCI bus of this VM: configuration ports CF8 and CFC. A VM without devices has no bus, and reads ones."""
from typing import Final

from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import u32

CONFIG_ADDRESS: Final = 0xCF8
CONFIG_DATA: Final = 0xCFC
ENABLE: Final[u32] = 1 << 31
SLOTS: Final = 32
NOTHING: Final[u32] = 0xFFFF_FFFF
BAR0: Final = 0x10
IO_MASK: Final[u32] = 0xFFFC


def read(slot: u32, register: u32) -> u32:
    """The dword at an aligned offset of device `slot`'s configuration space, function 0 on bus 0."""
    intrinsics.outl(CONFIG_ADDRESS, ENABLE | slot << 11 | register)
    return intrinsics.inl(CONFIG_DATA)


def find(identity: u32, skip: u32) -> u32:
    """Device number of the function with this device and vendor ID, after `skip` others of the same; SLOTS: none."""
    left: u32 = skip
    for slot in range(SLOTS):
        if read(u32(slot), 0) == identity:
            if left == 0:
                return u32(slot)
            left -= 1
    return SLOTS


def io_base(slot: u32) -> u32:
    """First I/O port of the function's registers."""
    return read(slot, BAR0) & IO_MASK
