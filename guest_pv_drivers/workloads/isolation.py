"""memory-write: fills `mib=` of memory with a pattern of its own, again and again for `ms=`, and finds it unchanged by others.
memory-peek: reads memory it never wrote, which must be zero, whoever had the frames before; with `key=1` once a key is typed for it."""
from typing import Final

from guest_pv_drivers import clock, command_line, memory, start_info, threads
from guest_pv_drivers.console import say
from hypervisor.abi import EVENT_CONSOLE
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import u32, u64, wrap_u64

FRAMES_PER_MIB: Final = 256
WORDS: Final = 512


def pattern(frame: u64, round_number: u64) -> u64:
    """What stands in each word of a frame: differs by VM, frame and round."""
    return wrap_u64((frame + 1) * 0x9E3779B97F4A7C15) ^ u64(start_info.get().vm_id) << 56 ^ round_number


def write_all(first: u64, count: u64, round_number: u64) -> None:
    """Fill frames."""
    for frame in range(first, first + count):
        for word in range(WORDS):
            intrinsics.store_u64(frame * memory.PAGE_SIZE + u64(word) * 8, pattern(frame, round_number))


def errors(first: u64, count: u64, round_number: u64) -> u64:
    """Words that are not what write_all put there."""
    wrong: u64 = 0
    for frame in range(first, first + count):
        for word in range(WORDS):
            if intrinsics.load_u64(frame * memory.PAGE_SIZE + u64(word) * 8) != pattern(frame, round_number):
                wrong += 1
    return wrong


def memory_write() -> u32:
    """Write and verify in rounds."""
    first = memory.frames.first_usable
    count = command_line.number("mib", 4) * FRAMES_PER_MIB
    end = clock.now_ns() + command_line.number("ms", 100) * clock.NS_PER_MS
    rounds: u64 = 0
    wrong: u64 = 0
    while rounds == 0 or clock.now_ns() < end:
        write_all(first, count, rounds)
        wrong += errors(first, count, rounds)
        rounds += 1
    verdict: str = "ok" if wrong == 0 else "CHANGED"
    say(f"memory {verdict} {rounds} rounds of {count} frames, {wrong} words wrong")
    return 0 if wrong == 0 else 1


def memory_peek() -> u32:
    """Look for other people's data in fresh memory."""
    count = command_line.number("mib", 4) * FRAMES_PER_MIB
    if command_line.number("key", 0) != 0:
        say("peek waits for a key")
        threads.wait(EVENT_CONSOLE, 0)
    found: u64 = 0
    for frame in range(memory.frames.first_usable, memory.frames.first_usable + count):
        for word in range(WORDS):
            if intrinsics.load_u64(frame * memory.PAGE_SIZE + u64(word) * 8) != 0:
                found += 1
    verdict: str = "ok" if found == 0 else "FOUND"
    say(f"peek {verdict} {count} frames, {found} words not zero")
    return 0 if found == 0 else 1
