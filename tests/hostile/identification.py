"""Every CPUID leaf of the ranges that are in use: what they show, and that hidden features are hidden."""
from typing import Annotated, Final

from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import address, array, u32, u64
from tests.hostile import chance, machine

SUBLEAVES: Final = 64
RANDOM_LEAVES: Final = 1000
STARTS: Final = 4
FIRST: Final[Annotated[list[u32], STARTS]] = [0, 0x40000000, 0x40004B00, 0x80000000]


def ask(leaf: u32, subleaf: u32) -> u64:
    """How many of the four registers are not 0; prints leaf 1 and 7 and the extended features."""
    r: Annotated[list[u32], 4] = array(u32, 4)
    intrinsics.cpuid(leaf, subleaf, address(r))
    if leaf in (1, 7, 0x80000001) and subleaf == 0:
        ebx: u32 = u32(r[1] & 0xFFFF00) if leaf == 1 else r[1]
        machine.say(f"cpuid {leaf:#x}: {ebx:#x} {r[2]:#x} {r[3]:#x}")
    return (1 if r[0] != 0 else 0) + (1 if r[1] != 0 else 0) + (1 if r[2] != 0 else 0) + (1 if r[3] != 0 else 0)


def identification() -> u32:
    """All of it; every leaf is answered."""
    asked: u64 = 0
    shown: u64 = 0
    for start in FIRST:
        for leaf in range(256):
            for subleaf in range(SUBLEAVES if leaf in (4, 7, 0xB, 0xD, 0x14) else 2):
                shown += ask(u32(start + leaf), u32(subleaf))
                asked += 1
    for _ in range(RANDOM_LEAVES):
        shown += ask(u32(chance.draw() & 0xFFFFFFFF), u32(chance.nasty() & 0xFFFFFFFF))
        asked += 1
    machine.say(f"{asked} leaves asked, {shown} registers not 0")
    return 0
