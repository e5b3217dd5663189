"""Back-traces by frame pointers (the build passes -fno-omit-frame-pointer)."""
from typing import Final

from hypervisor import symbols
from hypervisor.arch_x86 import stacks
from hypervisor.arch_x86.intrinsics import load_u64
from hypervisor.console import say
from hypervisor.lang import u64

MOST_FRAMES: Final = 32


def show_from(rip: u64, frame: u64) -> None:
    """Print the code address `rip`, then those from the frame at `frame` (an RBP) outwards."""
    say("  back-trace, innermost first:")
    _show_place(rip)
    _walk(frame)


def show(frame: u64) -> None:
    """Print the return addresses from the frame at `frame` outwards."""
    say("  back-trace, innermost first:")
    _walk(frame)


def _walk(start: u64) -> None:
    """Follow saved RBPs while they lie on one of our stacks."""
    frame = start
    count: u64 = 0
    while count < MOST_FRAMES and frame & 7 == 0 and stacks.holds(frame, 16):
        _show_place(load_u64(frame + 8) - 1)  # a return address stands behind its call
        frame = load_u64(frame)
        count += 1


def _show_place(rip: u64) -> None:
    place = symbols.Place()
    if symbols.lookup(rip, place):
        say(f"    {rip:016x} {place.function} ({place.home}{place.file}:{place.line})")
    else:
        say(f"    {rip:016x}")
