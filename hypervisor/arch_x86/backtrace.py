"""Back-traces by frame pointers (the build passes -fno-omit-frame-pointer)."""
from typing import Final

from hypervisor.arch_x86.intrinsics import load_u64
from hypervisor.console import say
from hypervisor.lang import link_address, u64

MOST_FRAMES: Final = 32


def show(frame: u64) -> None:
    """Print the return addresses from the frame at `frame` (an RBP) outwards, while they lie on a stack of ours."""
    say("back-trace (innermost first):")
    low = link_address("__stacks_start")
    high = link_address("__stacks_end")
    count: u64 = 0
    while count < MOST_FRAMES and low <= frame and frame < high - 8 and frame & 7 == 0:
        show_place(load_u64(frame + 8))
        frame = load_u64(frame)
        count += 1


def show_place(rip: u64) -> None:
    """Print one line for a code address."""
    say(f"  {rip:016x}")
