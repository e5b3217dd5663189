"""Random bytes for guests: ChaCha20 with a key that is replaced after each block, so that what was given cannot be found again.

RFC 8439, 2.3 (block function). Each request stirs in the TSC and, where the CPU has it, RDRAND. Without RDRAND the bytes are as
good as the moments of the exits so far, no better: has_hardware says which.
"""
from typing import Annotated, Final

from hypervisor.addresses import Hva
from hypervisor.arch_x86.cpu_features import CpuidResult
from hypervisor.arch_x86.intrinsics import copy_memory, cpuid, rdrand, rdtsc
from hypervisor.lang import address, offsetof, struct, u32, u64, wrap_u32, wrap_u64

KEY_WORDS: Final = 8
KEY_BYTES: Final = 32
BLOCK_WORDS: Final = 16
DOUBLE_ROUNDS: Final = 10
LOW: Final[u64] = 0xFFFF_FFFF
RDRAND: Final[u32] = 1 << 30  # CPUID.1:ECX
RDRAND_TRIES: Final = 10  # Intel SDM vol. 1, 7.3.17.1
CONSTANTS: Final[Annotated[list[u32], 4]] = [0x6170_7865, 0x3320_646E, 0x7962_2D32, 0x6B20_6574]


@struct
class Pool:
    """The key, and the block that is being made."""

    key: Annotated[list[u32], KEY_WORDS]
    counter: u64
    drawn: u64  # from RDRAND
    hardware: bool
    start: Annotated[list[u32], BLOCK_WORDS]
    block: Annotated[list[u32], BLOCK_WORDS]


pool: Final = Pool()


def init() -> None:
    """Find RDRAND and fill the key. Boot only."""
    r = CpuidResult()
    cpuid(1, 0, address(r))
    pool.hardware = r.ecx & RDRAND != 0
    for index in range(KEY_WORDS):
        stir(index)
        next_block()


def has_hardware() -> bool:
    """Whether RDRAND is among the sources."""
    return pool.hardware


def stir(place: u64) -> None:
    """Mix the TSC and RDRAND into the key."""
    value: u64 = wrap_u64(rdtsc() * 0x9E37_79B9_7F4A_7C15)
    for _ in range(RDRAND_TRIES if pool.hardware else 0):
        if rdrand(address(pool) + offsetof(Pool, "drawn")):
            value ^= pool.drawn
            break
    first: u64 = 2 * place & (KEY_WORDS - 1)
    pool.key[first] = pool.key[first] ^ u32(value & LOW)
    pool.key[first + 1] = pool.key[first + 1] ^ u32(value >> 32)


def fill(target: Hva, length: u64) -> None:
    """`length` random bytes, at most 64 at a time (below 3,000 instructions)."""
    assert length <= 2 * KEY_BYTES
    done: u64 = 0
    while done < length:
        stir(pool.counter)
        next_block()
        part: u64 = min(length - done, KEY_BYTES)
        copy_memory(target + done, address(pool.block) + KEY_BYTES, part)
        for index in range(KEY_WORDS):
            pool.block[KEY_WORDS + index] = 0
        done += part


def next_block() -> None:
    """One block: its first half becomes the key, the other is for who asked."""
    for index in range(4):
        pool.start[index] = CONSTANTS[index]
    for index in range(KEY_WORDS):
        pool.start[4 + index] = pool.key[index]
    pool.start[12] = u32(pool.counter & LOW)
    pool.start[13] = u32(pool.counter >> 32)
    pool.start[14] = 0
    pool.start[15] = 0
    pool.counter = wrap_u64(pool.counter + 1)
    chacha20()
    for index in range(KEY_WORDS):
        pool.key[index] = pool.block[index]
        pool.block[index] = 0


def chacha20() -> None:
    """The block function: pool.start -> pool.block."""
    for index in range(BLOCK_WORDS):
        pool.block[index] = pool.start[index]
    for _ in range(DOUBLE_ROUNDS):
        for column in range(4):
            quarter(column, 4 + column, 8 + column, 12 + column)
        for diagonal in range(4):
            quarter(diagonal, 4 + (diagonal + 1 & 3), 8 + (diagonal + 2 & 3), 12 + (diagonal + 3 & 3))
    for index in range(BLOCK_WORDS):
        pool.block[index] = wrap_u32(pool.block[index] + pool.start[index])


def quarter(a: u64, b: u64, c: u64, d: u64) -> None:
    """Quarter round."""
    w = pool.block
    w[a] = wrap_u32(w[a] + w[b])
    w[d] = left(w[d] ^ w[a], 16)
    w[c] = wrap_u32(w[c] + w[d])
    w[b] = left(w[b] ^ w[c], 12)
    w[a] = wrap_u32(w[a] + w[b])
    w[d] = left(w[d] ^ w[a], 8)
    w[c] = wrap_u32(w[c] + w[d])
    w[b] = left(w[b] ^ w[c], 7)


def left(value: u32, count: u32) -> u32:
    """Rotation."""
    return wrap_u32(u64(value) << (count & 31) | value >> (32 - count & 31))
