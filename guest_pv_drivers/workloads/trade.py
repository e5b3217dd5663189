"""Two guests trade memory. `role=give`: fills `fill=` MiB, frees all but a quarter of it to its own allocator, idles until its
driver has released `mib=` MiB, and finds what it kept unchanged. `role=unused`: as give, but says that what it freed is unused,
so that nobody has to ask. `role=grow`: takes `mib=` MiB as memory comes, and reads back
what it wrote there."""
from typing import Annotated, Final

from guest_pv_drivers import clock, command_line, memory, memory_pressure, threads
from guest_pv_drivers.console import say
from guest_pv_drivers.workloads.isolation import errors, write_all
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import struct, u32, u64

FRAMES_PER_MIB: Final = 256
FRAME_WORDS: Final = 512
PART: Final = 1024  # numbers of frames that one frame has room for
MAX_PARTS: Final = 64
LIMIT_MS: Final = 60000
RETRY_MS: Final = 1


@struct
class Owned:
    """Frames that this workload took, in order; their numbers stand in frames of their own, which nobody gets back."""

    count: u64
    parts: Annotated[list[u64], MAX_PARTS]  # addresses, 0: not needed yet


owned: Final = Owned()


def trade() -> u32:
    """One side of the trade."""
    if command_line.has_value("role", "give"):
        return give(command_line.number("fill", 16) * FRAMES_PER_MIB, command_line.number("mib", 8) * FRAMES_PER_MIB)
    if command_line.has_value("role", "unused"):
        return give_unused(command_line.number("fill", 16) * FRAMES_PER_MIB)
    return grow(command_line.number("mib", 16) * FRAMES_PER_MIB)


def take(count: u64) -> bool:
    """Own so many frames, filled with this VM's pattern, waiting for memory where it is short; False: it did not come in time."""
    end = clock.now_ns() + LIMIT_MS * clock.NS_PER_MS
    while owned.count < count:
        frame = memory.alloc()
        if frame != 0 and owned.parts[owned.count // PART] == 0:
            owned.parts[owned.count // PART] = frame * memory.PAGE_SIZE
        elif frame != 0:
            write_all(frame, 1, 0)
            intrinsics.store_u32(place_of(owned.count), u32(frame))
            owned.count += 1
        elif clock.now_ns() > end:
            return False
        else:
            threads.sleep_ms(RETRY_MS)
    return True


def place_of(i: u64) -> u64:
    """Where the number of the i-th frame stands."""
    return owned.parts[i // PART] + i % PART * 4


def frame_of(i: u64) -> u64:
    """The i-th frame."""
    return intrinsics.load_u32(place_of(i))


def wrong_words() -> u64:
    """Words of the owned frames that changed."""
    wrong: u64 = 0
    for i in range(owned.count):
        wrong += errors(frame_of(i), 1, 0)
    return wrong


def fill_and_free(fill: u64) -> bool:
    """Take and write so many frames, then free all but a quarter of them."""
    if not take(fill):
        say(f"trade FAILED: only {owned.count} of {fill} frames to fill")
        return False
    while owned.count > fill // 4:
        owned.count -= 1
        memory.free(frame_of(owned.count))
    return True


def give_unused(fill: u64) -> u32:
    """Says of what it freed that it is unused, and counts `ms=` later what of it was taken (and so reads zero)."""
    if not fill_and_free(fill):
        return 1
    noted = memory.mark_unused()
    say(f"trade filled {fill} frames, keeps {owned.count}, says {noted} are unused")
    threads.sleep_ms(command_line.number("ms", 6000))
    kept = owned.count
    taken: u64 = 0
    changed: u64 = 0
    for i in range(kept, fill):
        wrong = errors(frame_of(i), 1, 0)
        taken += 1 if wrong == FRAME_WORDS else 0
        changed += 1 if 0 < wrong < FRAME_WORDS else 0
    if changed != 0 or wrong_words() != 0:
        say(f"trade FAILED: {changed} unused frames half changed, {wrong_words()} words changed")
        return 1
    say(f"trade ok {taken} of {noted} were taken")
    return 0


def give(fill: u64, wanted: u64) -> u32:
    """The side that has memory to spare."""
    if not fill_and_free(fill):
        return 1
    say(f"trade filled {fill} frames, keeps {owned.count}, idles")
    end = clock.now_ns() + LIMIT_MS * clock.NS_PER_MS
    while memory_pressure.statistics.released < wanted and clock.now_ns() < end:
        threads.sleep_ms(RETRY_MS)
    released = memory_pressure.statistics.released
    if released < wanted or wrong_words() != 0:
        say(f"trade FAILED: released {released} of {wanted} frames, {wrong_words()} words changed")
        return 1
    say(f"trade ok released {released}")
    return 0


def grow(count: u64) -> u32:
    """The side that needs memory."""
    if not take(count) or wrong_words() != 0:
        say(f"trade FAILED: grew {owned.count} of {count} frames, {wrong_words()} words changed")
        return 1
    say(f"trade ok grew {owned.count}")
    return 0
