"""Asks for `mib=` of memory by MEM_POPULATE, until all is there or an error comes."""
from typing import Final

from guest_pv_drivers import command_line, hypercall, memory
from guest_pv_drivers.console import say
from hypervisor.lang import u32, u64

FRAMES_PER_MIB: Final = 256


def populate() -> u32:
    """Page after page, from the first free one on."""
    wanted = command_line.number("mib", 8) * FRAMES_PER_MIB
    done: u64 = 0
    while done < wanted:
        result = hypercall.populate(memory.frames.first_usable + done, wanted - done)
        if result <= 0:
            say(f"populate ok {done} of {wanted} frames, then error {0 - result}")
            return 0
        done += u64(result)
    say(f"populate ok {done} of {wanted} frames")
    return 0
