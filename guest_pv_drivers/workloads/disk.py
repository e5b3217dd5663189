"""Uses the VM's first disk: writes it full, flushes, starts anew, reads all of it back and compares; and measures it."""
from typing import Annotated, Final

from guest_pv_drivers import command_line, hypercall, memory, virtio_disk
from guest_pv_drivers.console import say
from hypervisor.arch_x86 import intrinsics
from hypervisor.arch_x86.intrinsics import load_u64, store_u64
from hypervisor.lang import struct, u32, u64, wrap_u64

BLOCK_SECTORS: Final = 8
BLOCK_BYTES: Final = 4096
WORDS: Final = 512
MARK: Final[u64] = 0x4B52_4149_5444_4953  # in the last block, once all others are written
STRIDE: Final = 7919  # a prime: blocks are visited out of order, each once


@struct
class Buffers:
    """A frame and a block number for each request in flight."""

    frame: Annotated[list[u64], virtio_disk.SLOTS]
    block: Annotated[list[u64], virtio_disk.SLOTS]
    errors: u64


buffers: Final = Buffers()


def disk() -> u32:
    """`blocks=` of 4 KiB (all that the disk has, less one), `depth=` in flight. First life: writes, flushes, reboots; second: compares."""
    if not virtio_disk.init(0):
        say("disk: there is none")
        return 1
    most: u64 = virtio_disk.disk.sectors // BLOCK_SECTORS - 1
    blocks: u64 = min(command_line.number("blocks", most), most)
    depth = command_line.number("depth", 32)
    for index in range(depth):
        buffers.frame[index] = memory.alloc() * memory.PAGE_SIZE
    mark = buffers.frame[0]
    if not virtio_disk.now(virtio_disk.READ, most * BLOCK_SECTORS, mark, BLOCK_BYTES):
        return failed("reading the last block")
    if load_u64(mark) == MARK:
        many(virtio_disk.READ, blocks, depth)
        if buffers.errors != 0:
            return failed("comparing")
        say(f"disk ok: {blocks} blocks are as they were written, {virtio_disk.disk.kicks} notifications")
        return 0
    many(virtio_disk.WRITE, blocks, depth)
    store_u64(mark, MARK)
    if buffers.errors != 0 or not virtio_disk.now(virtio_disk.FLUSH, 0, 0, 0):
        return failed("writing")
    if not virtio_disk.now(virtio_disk.WRITE, most * BLOCK_SECTORS, mark, BLOCK_BYTES) or not virtio_disk.now(virtio_disk.FLUSH, 0, 0, 0):
        return failed("writing the last block")
    say(f"disk written: {blocks} blocks, {virtio_disk.disk.kicks} notifications")
    hypercall.reboot()
    return 1


def failed(what: str) -> u32:
    """Say it."""
    say(f"disk: {what} went wrong, {buffers.errors} errors")
    return 1


def many(kind: u32, blocks: u64, depth: u64) -> None:
    """Every block once, `depth` requests in flight: filled before it is written, compared after it was read."""
    started: u64 = 0
    ended: u64 = 0
    while ended < blocks:
        while started < blocks and started - ended < depth and start(kind, started * STRIDE % blocks, depth):
            started += 1
        virtio_disk.kick()
        slot = virtio_disk.wait()
        while slot != virtio_disk.NO_SLOT:
            end(kind, slot)
            ended += 1
            slot = virtio_disk.reap()


def start(kind: u32, block: u64, depth: u64) -> bool:
    """One request; its slot is below `depth`, as no more are in flight, and has a frame."""
    slot: u32 = 0
    while slot < depth and virtio_disk.disk.busy[slot] != 0:
        slot += 1
    frame = buffers.frame[slot]
    buffers.block[slot] = block
    if kind == virtio_disk.WRITE:
        for word in range(WORDS):
            store_u64(frame + 8 * word, pattern(block, word))
    return virtio_disk.submit(kind, block * BLOCK_SECTORS, frame, BLOCK_BYTES) == slot


def end(kind: u32, slot: u32) -> None:
    """Its outcome, and what was read."""
    if virtio_disk.status_of(slot) != virtio_disk.OK:
        buffers.errors += 1
    elif kind == virtio_disk.READ:
        for word in range(WORDS):
            if load_u64(buffers.frame[slot] + 8 * word) != pattern(buffers.block[slot], word):
                buffers.errors += 1
                return


def pattern(block: u64, word: u64) -> u64:
    """What stands in a block."""
    return wrap_u64((block * WORDS + word + 1) * 0x9E37_79B9_7F4A_7C15)


def disk_bench() -> u32:
    """TSC ticks (under `-icount shift=0`: instructions) and notifications for `single=` reads of 4 KiB (`count=` unless said) at depth 1,
    then `count=` at depth 32."""
    if not virtio_disk.init(0):
        return 1
    for index in range(virtio_disk.SLOTS):
        buffers.frame[index] = memory.alloc() * memory.PAGE_SIZE
        store_u64(buffers.frame[index], 0)
    count = command_line.number("count", 2048)
    measure(1, command_line.number("single", count))
    measure(32, count)
    return 0 if buffers.errors == 0 else 1


def measure(depth: u64, count: u64) -> None:
    """One line for the host side's `bench`."""
    blocks: u64 = virtio_disk.disk.sectors // BLOCK_SECTORS
    kicks = virtio_disk.disk.kicks
    began = intrinsics.rdtsc()
    started: u64 = 0
    ended: u64 = 0
    while ended < count:
        while started < count and started - ended < depth:
            started += 1
            virtio_disk.submit(virtio_disk.READ, started * STRIDE % blocks * BLOCK_SECTORS, buffers.frame[started % depth], BLOCK_BYTES)
        virtio_disk.kick()
        slot = virtio_disk.wait()
        while slot != virtio_disk.NO_SLOT:
            if virtio_disk.status_of(slot) != virtio_disk.OK:
                buffers.errors += 1
            ended += 1
            slot = virtio_disk.reap()
    ticks = intrinsics.rdtsc() - began
    say(f"bench: disk depth {depth} requests {count} ticks {ticks} notifications {virtio_disk.disk.kicks - kicks}")
