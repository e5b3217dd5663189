"""All of this guest's memory, and what is behind it."""
from typing import Final

from hypervisor.arch_x86.intrinsics import load_u8, load_u64, store_u64
from hypervisor.lang import link_address, u32, u64, wrap_u64
from tests.hostile import machine
from tests.hostile.cpu import PAGE_BYTES

ONES: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF
HOLE_STEP: Final[u64] = 0x400000 + 0x1000
LOW_END: Final[u64] = 0x100000
PC_HOLE: Final[u64] = 0xA0000
DEVICES: Final[u64] = 0xC0000000  # to 4 GiB: a platform may have some there
HIGH: Final[u64] = 1 << 32
LAST: Final = 39


def own_memory() -> u64:
    """Write every page behind the image, then read all back; how many words were wrong."""
    first: u64 = (link_address("__image_end") + PAGE_BYTES - 1) & ~u64(PAGE_BYTES - 1)
    wrong: u64 = 0
    for place in range(first, machine.machine.memory_bytes, PAGE_BYTES):
        store_u64(place, wrap_u64(place * 31))
        store_u64(place + PAGE_BYTES - 8, ~place & ONES)
    for place in range(first, machine.machine.memory_bytes, PAGE_BYTES):
        if load_u64(place) != wrap_u64(place * 31) or load_u64(place + PAGE_BYTES - 8) != ~place & ONES:
            wrong += 1
    return wrong


def touch_hole(place: u64) -> u64:
    """Read, write and read again what is not there; 0: ones both times."""
    before = load_u64(place)
    store_u64(place, 0x1234)
    return 0 if before == ONES and load_u64(place) == ONES else 1


def memory() -> u32:
    """Own memory; then beyond it, as far as this kernel maps: a PV guest is stopped there."""
    machine.say(f"own memory: {own_memory()} pages wrong")
    wrong: u64 = 0
    touched: u64 = 0
    for place in range(machine.machine.memory_bytes, DEVICES, HOLE_STEP):
        wrong += touch_hole(place)
        touched += 1
    for bit in range(32, LAST):
        wrong += touch_hole(u64(1) << (bit & 63))
        wrong += touch_hole((u64(1) << (bit & 63)) + (u64(1) << (bit & 63)) - 8)
        touched += 2
    machine.say(f"beyond: {touched} places, {wrong} wrong")
    return 0 if wrong == 0 else 1
