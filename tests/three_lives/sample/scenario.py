"""Random operations on all the sample modules, from a seed; what they answer is gathered in `log`."""
from typing import Annotated, Final

from hypervisor.addresses import Gpa, Hpa, PAGE_SIZE
from hypervisor.lang import address, array, struct, u8, u32, u64, wrap_u64
from tests.three_lives.sample import frames, ring, run_queue

STEPS: Final = 400


@struct
class Log:
    """Digest of every answer, and the parts it was made of."""

    seed: u64
    digest: u64
    picks: u32
    lost: u32
    used: u64


log: Final = Log()
queue: Final = run_queue.Queue()
pool: Final = frames.Pool()
bytes_ring: Final = ring.Ring()
window: Final[Annotated[list[u8], (frames.FRAMES + 1) * PAGE_SIZE]] = array(u8, (frames.FRAMES + 1) * PAGE_SIZE)


def next_random() -> u64:
    """The next number of a linear congruential generator."""
    log.seed = wrap_u64(log.seed * 6364136223846793005 + 1442695040888963407)
    return log.seed >> 17


def note(value: u64) -> None:
    """Take an answer into the digest."""
    log.digest = wrap_u64((log.digest ^ value) * 0x0000_0100_0000_01B3)


def step() -> None:
    """One random operation on each module."""
    number = next_random()
    task = queue.tasks[number % run_queue.TASKS]
    task.weight = u32(next_random() % 2000)
    task.level = number % 7
    task.boosted = number % 5 == 0
    if task.state == run_queue.State.FREE:
        task.state = run_queue.State.READY
    note(u64(run_queue.pick(queue)))
    note(run_queue.charge(queue, u32(number % run_queue.TASKS), u32(next_random() % 100_000)))
    run_queue.block_on(queue, u32(number % 8), u32(next_random() % 8))
    note(run_queue.wake_all(queue, u32(next_random() % 8)))
    note(run_queue.class_of(task.state, task.weight))
    gpa = Gpa(next_random() % 64 * PAGE_SIZE * 513)
    note(frames.map_page(pool, gpa, Hpa(number % 1024 * PAGE_SIZE)))
    note(frames.walk(pool, gpa))
    note(frames.walk(pool, Gpa(next_random() % 64 * PAGE_SIZE * 513)) & 0xFFF)
    note(ring.put_word(bytes_ring, u32(number)))
    ring.report(bytes_ring, u32(number % 3), wrap_u64(number * 0x9E37_79B9_7F4A_7C15), number % 2 == 0)
    for _ in range(number % 200):
        note(u64(ring.take(bytes_ring)))
    note(ring.checksum(bytes_ring, u32(number % 3)))


def run(seed: u64) -> u64:
    """All steps from a seed; the digest."""
    log.seed = seed
    pool.base = Hpa((address(window) + PAGE_SIZE - 1) & ~0xFFF)
    for _ in range(STEPS):
        step()
    log.picks = queue.picks
    log.lost = bytes_ring.lost
    log.used = pool.used
    return log.digest
