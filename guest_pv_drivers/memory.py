"""Memory of this kernel: identity page tables of its own, and an allocator of 4 KiB frames.

The allocator keeps one byte a frame beside the frames, so that a free frame is never touched: the hypervisor may then take it. This map
lies behind the image, as large as the VM's memory demands.
"""
from typing import Annotated, Final

from guest_pv_drivers import hypercall, start_info
from hypervisor.abi import PageState
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import address, struct, u8, u64

PAGE_SIZE: Final = 4096
PAGE_SHIFT: Final = 12
LARGE_PAGE_SIZE: Final = 0x200000
DEVICES: Final[u64] = 0xC0000000  # the fourth GiB
MAX_FRAMES: Final = 0x40000  # 1 GiB
ENTRIES: Final = 512
PRESENT_WRITABLE: Final = 3
LARGE_PAGE: Final = 0x80
POPULATE_BATCH: Final = 64

# States of a frame in the map.
FREE: Final = 1  # free, with memory behind it
USED: Final = 2
ABSENT: Final = 3  # free, never used or given back to the hypervisor: to be populated before use


@struct(align=4096)
class PageTables:
    """Identity map of the first GiB, where memory is, and of the fourth, where the local APIC is, in 2 MiB pages; the first 2 MiB in
    4 KiB pages, page 0 absent."""

    level4: Annotated[list[u64], ENTRIES]
    level3: Annotated[list[u64], ENTRIES]
    memory: Annotated[list[u64], ENTRIES]
    devices: Annotated[list[u64], ENTRIES]
    first: Annotated[list[u64], ENTRIES]


@struct
class Frames:
    """The allocator: all fields are changed with interrupts off only."""

    count: u64  # frames of this VM
    first_usable: u64
    free: u64
    absent: u64
    search: u64  # where the next search begins
    states: u64  # address of the map


tables: Final = PageTables()
frames: Final = Frames()


def init() -> None:
    """Own page tables; every frame behind the image is free, at most MAX_FRAMES in all."""
    for i in range(ENTRIES):
        tables.memory[i] = u64(i) * LARGE_PAGE_SIZE | LARGE_PAGE | PRESENT_WRITABLE
        tables.devices[i] = DEVICES + u64(i) * LARGE_PAGE_SIZE | LARGE_PAGE | PRESENT_WRITABLE
    for i in range(1, ENTRIES):
        tables.first[i] = u64(i) * PAGE_SIZE | PRESENT_WRITABLE
    tables.memory[0] = address(tables.first) | PRESENT_WRITABLE
    tables.level3[0] = address(tables.memory) | PRESENT_WRITABLE
    tables.level3[3] = address(tables.devices) | PRESENT_WRITABLE
    tables.level4[0] = address(tables.level3) | PRESENT_WRITABLE
    use_tables()
    map_: u64 = (start_info.get().image_end + PAGE_SIZE - 1) >> PAGE_SHIFT
    end: u64 = min(start_info.get().memory_bytes >> PAGE_SHIFT, MAX_FRAMES)
    start_allocator(map_ << PAGE_SHIFT, map_ + ((end + PAGE_SIZE - 1) >> PAGE_SHIFT), end)


def use_tables() -> None:
    """Let this vCPU translate by our tables. Another one than the first calls it after init."""
    intrinsics.write_cr3(address(tables.level4))


def start_allocator(states: u64, first: u64, end: u64) -> None:
    """All frames of [first, end) are free, none has been used yet; the map is `end` bytes at `states`."""
    assert first <= end <= MAX_FRAMES
    frames.states = states
    frames.count = end
    frames.first_usable = first
    frames.search = first
    frames.absent = end - first
    set_states(first, frames.absent, ABSENT)


def state_of(frame: u64) -> u8:
    """FREE, USED, ABSENT."""
    return intrinsics.load_u8(frames.states + frame)


def find(state: u8) -> u64:
    """A frame in this state, searched from where the last search ended; 0: none."""
    for _ in range(frames.count):
        if frames.search >= frames.count:
            frames.search = frames.first_usable
        if state_of(frames.search) == state:
            return frames.search
        frames.search += 1
    return 0


def run_length(first: u64, limit: u64) -> u64:
    """How many frames from first on are in the state of first, at most limit."""
    n: u64 = 1
    while n < limit and first + n < frames.count and state_of(first + n) == state_of(first):
        n += 1
    return n


def set_states(first: u64, count: u64, state: u8) -> None:
    """Note a new state of frames."""
    intrinsics.fill_memory(frames.states + first, state, count)


def populate_some() -> bool:
    """Ask the hypervisor for some frames; False when it gives none now."""
    first = find(ABSENT)
    if first == 0:
        return False
    result = hypercall.populate(first, run_length(first, POPULATE_BATCH))
    if result <= 0:
        return False
    got = u64(result)
    set_states(first, got, FREE)
    frames.free += got
    frames.absent -= got
    return True


def alloc() -> u64:
    """Frame number of a frame to use, contents unknown; 0: none now."""
    flags = intrinsics.interrupts_off()
    frame: u64 = 0
    if frames.free > 0 or populate_some():
        frame = find(FREE)
        set_states(frame, 1, USED)
        frames.free -= 1
    intrinsics.interrupts_restore(flags)
    return frame


def free(frame: u64) -> None:
    """Give a frame back to this allocator."""
    flags = intrinsics.interrupts_off()
    assert state_of(frame) == USED
    set_states(frame, 1, FREE)
    frames.free += 1
    intrinsics.interrupts_restore(flags)


def release_run(limit: u64) -> u64:
    """Give one run of free frames, at most limit, back to the hypervisor; how many it took, 0: none is free."""
    flags = intrinsics.interrupts_off()
    taken: u64 = 0
    first = find(FREE)
    if first != 0:
        result = hypercall.release(first, run_length(first, limit))
        if result > 0:
            taken = u64(result)
            set_states(first, taken, ABSENT)
            frames.free -= taken
            frames.absent += taken
    intrinsics.interrupts_restore(flags)
    return taken


def mark_unused() -> u64:
    """Tell the hypervisor that the contents of all free frames do not matter; how many it noted."""
    flags = intrinsics.interrupts_off()
    noted: u64 = 0
    frame = frames.first_usable
    while frame < frames.count:
        n = run_length(frame, MAX_FRAMES)
        if state_of(frame) == FREE:
            result = hypercall.page_state(frame, n, PageState.UNUSED)
            assert result > 0
            n = u64(result)
            noted += n
        frame += n
    intrinsics.interrupts_restore(flags)
    return noted
