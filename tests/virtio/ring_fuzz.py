"""Takes chains from broken rings and looks whether what comes out can be trusted. In the subset: interpreted, compiled, sanitized."""
from typing import Final

from guest_pv_drivers import broken_rings
from guest_pv_drivers.broken_rings import maker
from hypervisor.addresses import Gpa
from hypervisor.lang import address, struct, u32, u64
from hypervisor.memory import guest_memory
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status
from hypervisor.virtio import cursor, ring
from hypervisor.virtio.cursor import Cursor
from hypervisor.virtio.ring import Chain
from hypervisor.virtio.state import QUEUE_SIZE_MOST, Place, Queue

DESCRIPTORS: Final = 0x2F80  # guest-physical; all parts but the first cross a page
AVAILABLE: Final = 0x3FC0
USED: Final = 0x4F00
SCRATCH_PAGES: Final = 16


@struct
class Run:
    """The queue, and what came of it."""

    queue: Queue
    place: Place
    chain: Chain
    at: Cursor
    offered: u32
    taken: u64
    broken: u64
    segments: u64
    wrong: u64  # chains that should not have been taken


run: Final = Run()


def start_maker(vm: Vm, seed: u64, shift: u64) -> None:
    """Broken rings for this VM, whose memory is all backed and linear; `shift`: host address less guest-physical one."""
    maker.number = seed | 1
    maker.shift = shift
    maker.end = vm.memory_bytes
    maker.scratch = vm.memory_bytes - SCRATCH_PAGES * 4096


def begin(vm: Vm, vcpu: Vcpu, seed: u64, shift: u64) -> Status:
    """Enable a queue in the VM's memory; start_maker has the arguments."""
    start_maker(vm, seed, shift)
    maker.queue = DESCRIPTORS
    queue = run.queue
    queue.size = QUEUE_SIZE_MOST
    queue.descriptors = DESCRIPTORS
    queue.available = AVAILABLE
    queue.used = USED
    queue.next_available = 0
    queue.next_used = 0
    queue.signalled = 0
    queue.in_flight = 0
    run.offered = 0
    run.taken = 0
    run.broken = 0
    run.segments = 0
    run.wrong = 0
    return ring.attach(vm, vcpu, queue, run.place)


def turns(vm: Vm, count: u64) -> u64:
    """So many broken rings; chains that should not have been taken."""
    for _ in range(count):
        broken_rings.some_queue()
        run.offered = broken_rings.some_available(AVAILABLE, QUEUE_SIZE_MOST, run.offered)
        drain(vm)
    return run.wrong


def drain(vm: Vm) -> None:
    """Take what is offered, until there is nothing, or something broken: then the driver starts over."""
    features: u64 = ring.FEATURE_EVENT_INDEX | (ring.FEATURE_INDIRECT if broken_rings.draw(32) != 0 else 0)
    for _ in range(QUEUE_SIZE_MOST):
        status = ring.take(vm, run.queue, run.place, features, run.chain)
        if status == Status.NOT_FOUND:
            ring.ask_for_notification(run.queue, run.place, features)
            return
        if status != Status.OK:
            run.broken += 1
            run.queue.next_available = run.offered
            return
        check(vm)
        ring.advance(run.queue)
        run.taken += 1
        ring.give_back(run.queue, run.place, run.chain.head, 1)
        ring.interrupt_due(run.queue, run.place, features)


def check(vm: Vm) -> None:
    """Every byte of a chain lies in RAM, and cursors go through all of them once."""
    chain = run.chain
    total: u64 = 0
    for index in range(chain.count):
        segment = chain.segments[index]
        total += segment.length
        if segment.length == 0 or not guest_memory.in_ram(vm, segment.gpa, segment.length):
            run.wrong += 1
    if chain.count == 0 or chain.readable > chain.count or total != chain.read_bytes + chain.write_bytes:
        run.wrong += 1
    run.segments += chain.count
    if total > 1 << 20:
        return
    cursor.begin(run.at, chain, 0, 0, total)
    while cursor.step(run.at, chain):
        total -= run.at.length
        if not guest_memory.in_ram(vm, Gpa(run.at.gpa), run.at.length) or (run.at.gpa & 4095) + run.at.length > 4096:
            run.wrong += 1
    if total != 0:
        run.wrong += 1


def end(vm: Vm) -> u64:
    """Let go of the ring; the address of the results."""
    ring.detach(run.place)
    return address(run)
