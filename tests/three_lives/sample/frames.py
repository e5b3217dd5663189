"""A frame bitmap, and nested page tables built from its frames inside one window of memory."""
from typing import Annotated, Final

from hypervisor.addresses import Gpa, Hpa, PAGE_SIZE, hva_of
from hypervisor.lang import at, clear, struct, u64, wrap_u64
from hypervisor.status import Status

FRAMES: Final = 96
WORDS: Final = 2
PRESENT: Final = 7
FRAME_ADDRESS: Final[u64] = 0x000F_FFFF_FFFF_F000
LEVELS: Final = 4


@struct
class Pool:
    """Frames of the window at `base`: bit set, frame taken."""

    base: Hpa
    root: Hpa
    taken: Annotated[list[u64], WORDS]
    used: u64


@struct
class Table:
    """A page table."""

    entries: Annotated[list[u64], 512]


def allocate(pool: Pool) -> Hpa:
    """A zeroed frame, 0 if there is none."""
    for word in range(WORDS):
        free = wrap_u64(~pool.taken[word])
        if free == 0:
            continue
        bit: u64 = 0
        while (free >> (bit & 63)) & 1 == 0:
            bit += 1
        index = word * 64 + bit
        if index >= FRAMES:
            return Hpa(0)
        pool.taken[word] |= wrap_u64(1 << (bit & 63))
        pool.used += 1
        frame = Hpa(pool.base + index * PAGE_SIZE)
        clear(at(Table, hva_of(frame)))
        return frame
    return Hpa(0)


def release(pool: Pool, frame: Hpa) -> Status:
    """Give a frame back."""
    if frame < pool.base or frame & 0xFFF != 0:
        return Status.BAD_ADDRESS
    index = (frame - pool.base) // PAGE_SIZE
    if index >= FRAMES:
        return Status.BAD_ADDRESS
    mask = wrap_u64(1 << (index % 64))
    if pool.taken[index // 64] & mask == 0:
        return Status.NOT_FOUND
    pool.taken[index // 64] &= ~mask
    pool.used -= 1
    return Status.OK


def entry_index(gpa: Gpa, level: u64) -> u64:
    """Index into the table of a level (0 is the lowest)."""
    return (gpa >> (12 + 9 * (level & 3))) & 0x1FF


def map_page(pool: Pool, gpa: Gpa, frame: Hpa) -> Status:
    """Map one page, making tables on the way."""
    if pool.root == 0:
        pool.root = allocate(pool)
        if pool.root == 0:
            return Status.NO_MEMORY
    table = at(Table, hva_of(pool.root))
    for level in range(LEVELS - 1, 0, -1):
        index = entry_index(gpa, level)
        if table.entries[index] == 0:
            made = allocate(pool)
            if made == 0:
                return Status.NO_MEMORY
            table.entries[index] = made | PRESENT
        table = at(Table, table.entries[index] & FRAME_ADDRESS)
    table.entries[entry_index(gpa, 0)] = frame | PRESENT
    return Status.OK


def walk(pool: Pool, gpa: Gpa) -> u64:
    """The leaf entry of a page, 0 if it is not mapped."""
    place: u64 = pool.root
    for level in range(LEVELS - 1, -1, -1):
        if place == 0:
            return 0
        entry = at(Table, place).entries[entry_index(gpa, level)]
        if level == 0:
            return entry
        place = entry & FRAME_ADDRESS
    return 0
