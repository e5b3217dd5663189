"""Access to guests' memory at its host address, which must be that of a pinned page: each access opens the CPU's window for itself.

What lies there may change at any time: a number is fetched once, by one instruction. guest_memory.py is the way there by guest address.
"""
from hypervisor.addresses import Hva
from hypervisor.arch_x86 import intrinsics
from hypervisor.arch_x86.intrinsics import clac, stac
from hypervisor.lang import u8, u16, u32, u64


def load_u8(place: u64) -> u8:
    """One number."""
    stac()
    value = intrinsics.load_u8(place)
    clac()
    return value


def load_u16(place: u64) -> u16:
    """One number."""
    stac()
    value = intrinsics.load_u16(place)
    clac()
    return value


def load_u32(place: u64) -> u32:
    """One number."""
    stac()
    value = intrinsics.load_u32(place)
    clac()
    return value


def load_u64(place: u64) -> u64:
    """One number."""
    stac()
    value = intrinsics.load_u64(place)
    clac()
    return value


def store_u8(place: u64, value: u8) -> None:
    """One number."""
    stac()
    intrinsics.store_u8(place, value)
    clac()


def store_u16(place: u64, value: u16) -> None:
    """One number."""
    stac()
    intrinsics.store_u16(place, value)
    clac()


def store_u32(place: u64, value: u32) -> None:
    """One number."""
    stac()
    intrinsics.store_u32(place, value)
    clac()


def store_u64(place: u64, value: u64) -> None:
    """One number."""
    stac()
    intrinsics.store_u64(place, value)
    clac()


def or_u64(place: u64, value: u64) -> u64:
    """Atomically; what was there before."""
    stac()
    before = intrinsics.atomic_or_u64(place, value)
    clac()
    return before


def exchange_u64(place: u64, value: u64) -> u64:
    """Atomically; what was there before."""
    stac()
    before = intrinsics.atomic_xchg_u64(place, value)
    clac()
    return before


def copy(target: Hva, source: Hva, length: u64) -> None:
    """Bytes from or to a guest's page."""
    stac()
    intrinsics.copy_memory(target, source, length)
    clac()


def fill(place: Hva, value: u8, length: u64) -> None:
    """Bytes of a guest's page, or of a free one."""
    stac()
    intrinsics.fill_memory(place, value, length)
    clac()
