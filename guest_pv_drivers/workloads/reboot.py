"""Reboots, over and over: each life looks for what the one before left in memory, and leaves something itself."""
from typing import Final

from guest_pv_drivers import hypercall, memory, vcpus
from guest_pv_drivers.console import say
from guest_pv_drivers.workloads.isolation import write_all
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import u32, u64

FRAMES: Final = 16
EXIT_REFUSED: Final = 1
EXIT_NO_MEMORY: Final = 3


def reboot() -> u32:
    """With all vCPUs; returns only when the hypervisor refuses."""
    first = memory.frames.first_usable
    found: u64 = 0
    for place in range(first * memory.PAGE_SIZE, (first + FRAMES) * memory.PAGE_SIZE, 8):
        if intrinsics.load_u64(place) != 0:
            found += 1
    say(f"reboot: started with {found} words left of the life before")
    write_all(first, FRAMES, 1)
    if not vcpus.start():
        return EXIT_NO_MEMORY
    hypercall.reboot()
    return EXIT_REFUSED
