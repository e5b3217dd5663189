"""Whether two CPUs' TSCs agree: both read in turn, and none may ever see less than the other saw before."""
from typing import Final

from hypervisor.arch_x86.intrinsics import atomic_add_u64, atomic_xchg_u64, pause, rdtsc, store_u64
from hypervisor.lang import address, offsetof, struct, u64

ROUNDS: Final = 1000


@struct
class Warp:
    """What both write, by turns."""

    busy: u64  # one of them is between reading `last` and writing it
    last: u64  # the highest reading
    worst: u64  # ticks by which a later reading was lower
    came: u64  # how many have come to the comparison


warp: Final = Warp()


def prepare() -> None:
    """Before the second CPU is started."""
    warp.busy = 0
    warp.last = 0
    warp.worst = 0
    warp.came = 0


def compare() -> u64:
    """To be called by both CPUs at the same time: the ticks by which one is behind, 0 if none is seen to be."""
    atomic_add_u64(address(warp) + offsetof(Warp, "came"), 1)
    while warp.came < 2:
        pause()
    for _ in range(ROUNDS):
        while atomic_xchg_u64(address(warp) + offsetof(Warp, "busy"), 1) != 0:
            pause()
        before = warp.last
        now = rdtsc()
        if now < before:
            warp.worst = max(warp.worst, before - now)
        warp.last = max(now, before)
        store_u64(address(warp) + offsetof(Warp, "busy"), 0)
        pause()
    return warp.worst
