"""Split virtqueues: the only place that reads descriptors of a guest. Nothing in them is believed.

Source: virtio 1.1, 2.6. Every word is fetched once, checked, and used from the copy. A chain is taken whole or not at all:
each descriptor lies in RAM, is not empty, readable ones come before writable ones, an indirect table is the last, is not nested,
and no chain is longer than SEGMENTS_MOST, so that loops end. What is not so is a broken ring: BAD_ARGUMENT.

The parts of an enabled queue are pinned in the ledger (attach), so rings are read and written at host addresses at any time; a
guest that releases such a page meanwhile has lost its ring, and hurts nobody else.
"""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor.addresses import PAGE_MASK, PAGE_SHIFT, Gfn, Gpa, Hfn, Hva
from hypervisor.arch_x86.intrinsics import atomic_or_u64
from hypervisor.lang import address, clear, struct, u16, u32, u64, wrap_u16
from hypervisor.memory import backing, guest_memory, guest_window, ledger
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status
from hypervisor.virtio.state import Part, Place, Queue

SEGMENTS_MOST: Final = 66
DESCRIPTOR_BYTES: Final = 16
NEXT: Final[u32] = 1  # VIRTQ_DESC_F_NEXT
WRITE: Final[u32] = 2  # VIRTQ_DESC_F_WRITE
INDIRECT: Final[u32] = 4  # VIRTQ_DESC_F_INDIRECT
NO_INTERRUPT: Final = 1  # VIRTQ_AVAIL_F_NO_INTERRUPT
NO_NOTIFY: Final = 1  # VIRTQ_USED_F_NO_NOTIFY
INDEX: Final = 2  # of `idx` in both rings; `ring` follows
ELEMENTS: Final = 4
INDEX_MASK: Final = 0xFFFF
FEATURE_INDIRECT: Final[u64] = 1 << 28  # VIRTIO_F_RING_INDIRECT_DESC
FEATURE_EVENT_INDEX: Final[u64] = 1 << 29  # VIRTIO_F_RING_EVENT_IDX


@struct
class Descriptor:
    """struct virtq_desc, as fetched."""

    gpa: u64
    length: u32
    flags_next: u32


@struct
class Segment:
    """One checked piece of a chain: in RAM, not empty."""

    gpa: Gpa
    length: u32


@struct
class Chain:
    """A checked chain: `readable` segments that the device reads, then those that it writes."""

    head: u32
    count: u32
    readable: u32
    read_bytes: u64
    write_bytes: u64
    segments: Annotated[list[Segment], SEGMENTS_MOST]


@struct
class Table:
    """The copy of an indirect table, and what orders memory."""

    fence: u64
    descriptors: Annotated[list[Descriptor], SEGMENTS_MOST]


table: Final = Table()


def attach(vm: Vm, vcpu: Vcpu, queue: Queue, place: Place) -> Status:
    """Pin the queue's parts. WAIT: nothing is pinned, run the exit again; BAD_ARGUMENT: not aligned, not RAM; NO_MEMORY."""
    size = u64(queue.size)
    status = attach_part(vm, vcpu, place.descriptors, queue.descriptors, DESCRIPTOR_BYTES, DESCRIPTOR_BYTES * size)
    if status == Status.OK:
        status = attach_part(vm, vcpu, place.available, queue.available, 2, 6 + 2 * size)
    if status == Status.OK:
        status = attach_part(vm, vcpu, place.used, queue.used, 4, 6 + 8 * size)
    if status != Status.OK:
        detach(place)
    return status


def attach_part(vm: Vm, vcpu: Vcpu, part: Part, gpa: u64, alignment: u64, length: u64) -> Status:
    """Pin one part."""
    if gpa % alignment != 0 or not guest_memory.in_ram(vm, Gpa(gpa), length):
        return Status.BAD_ARGUMENT
    first: u64 = gpa >> PAGE_SHIFT
    pages: u64 = ((gpa + length - 1) >> PAGE_SHIFT) - first + 1
    for index in range(pages):
        status = backing.back_for(vcpu, vm, Gfn(first + index))
        if status != Status.OK:
            return status
        page = guest_memory.host_address(vm, Gpa((first + index) << PAGE_SHIFT))
        if not ledger.pin(Hfn(page >> PAGE_SHIFT)):
            return Status.NO_MEMORY
        part.pages[index] = page
    part.offset = gpa & PAGE_MASK
    return Status.OK


def detach(place: Place) -> None:
    """Let go of what attach pinned, all or some of it."""
    for page in place.descriptors.pages:
        unpin(page)
    for page in place.available.pages:
        unpin(page)
    for page in place.used.pages:
        unpin(page)
    clear(place)


def unpin(page: Hva) -> None:
    """One page of a part, if there is one."""
    if page != 0:
        ledger.unpin(Hfn(page >> PAGE_SHIFT))


def at_offset(part: Part, offset: u64) -> u64:
    """Host address of a byte of a part; what is naturally aligned does not cross a page."""
    place: u64 = part.offset + offset
    return part.pages[place >> PAGE_SHIFT] + (place & PAGE_MASK)


def available_index(place: Place) -> u32:
    """The driver's `idx`, fetched."""
    return guest_window.load_u16(at_offset(place.available, INDEX))


def is_empty(queue: Queue, place: Place) -> bool:
    """Whether the driver offers no chain."""
    return available_index(place) == queue.next_available


def take(vm: Vm, queue: Queue, place: Place, features: u64, chain: Chain) -> Status:
    """The next chain offered, checked. NOT_FOUND: none; BAD_ARGUMENT: the ring is broken. `advance` takes it away."""
    waiting = wrap_u16(available_index(place) - queue.next_available)
    if waiting == 0:
        return Status.NOT_FOUND
    if waiting > queue.size:
        return Status.BAD_ARGUMENT
    slot: u64 = queue.next_available & (queue.size - 1)
    chain.head = guest_window.load_u16(at_offset(place.available, ELEMENTS + 2 * slot))
    chain.count = 0
    chain.readable = 0
    chain.read_bytes = 0
    chain.write_bytes = 0
    return walk(vm, queue, place, features, chain)


def advance(queue: Queue) -> None:
    """The chain that `take` found has been taken."""
    queue.next_available = queue.next_available + 1 & INDEX_MASK
    queue.in_flight += 1


def walk(vm: Vm, queue: Queue, place: Place, features: u64, chain: Chain) -> Status:
    """Follow the descriptors from chain.head on."""
    index: u32 = chain.head
    for _ in range(SEGMENTS_MOST + 1):
        if index >= queue.size:
            return Status.BAD_ARGUMENT
        where = at_offset(place.descriptors, u64(index) * DESCRIPTOR_BYTES)
        gpa: u64 = guest_window.load_u64(where)
        rest: u64 = guest_window.load_u64(where + 8)
        flags = u32(rest >> 32 & INDEX_MASK)
        if flags & INDIRECT != 0:
            if features & FEATURE_INDIRECT == 0 or flags & NEXT != 0:
                return Status.BAD_ARGUMENT
            return walk_table(vm, gpa, u32(rest), chain)
        if not add(vm, chain, gpa, u32(rest), flags):
            return Status.BAD_ARGUMENT
        if flags & NEXT == 0:
            return Status.OK
        index = u32(rest >> 48)
    return Status.BAD_ARGUMENT


def walk_table(vm: Vm, gpa: u64, length: u32, chain: Chain) -> Status:
    """Follow an indirect table from its first descriptor on."""
    count: u32 = length // DESCRIPTOR_BYTES
    if count == 0 or count > SEGMENTS_MOST or length % DESCRIPTOR_BYTES != 0:
        return Status.BAD_ARGUMENT
    if guest_memory.read(vm, Hva(address(table.descriptors)), Gpa(gpa), length) != Status.OK:
        return Status.BAD_ARGUMENT
    index: u32 = 0
    for _ in range(SEGMENTS_MOST + 1):
        if index >= count:
            return Status.BAD_ARGUMENT
        found = table.descriptors[index]
        flags: u32 = found.flags_next & INDEX_MASK
        if flags & INDIRECT != 0 or not add(vm, chain, found.gpa, found.length, flags):
            return Status.BAD_ARGUMENT
        if flags & NEXT == 0:
            return Status.OK
        index = found.flags_next >> 16
    return Status.BAD_ARGUMENT


def add(vm: Vm, chain: Chain, gpa: u64, length: u32, flags: u32) -> bool:
    """One more segment; False: it may not be."""
    if length == 0 or chain.count >= SEGMENTS_MOST or not guest_memory.in_ram(vm, Gpa(gpa), length):
        return False
    if flags & WRITE != 0:
        chain.write_bytes += length
    elif chain.write_bytes != 0:
        return False
    else:
        chain.read_bytes += length
        chain.readable += 1
    segment = chain.segments[chain.count]
    segment.gpa = Gpa(gpa)
    segment.length = length
    chain.count += 1
    return True


def give_back(queue: Queue, place: Place, head: u32, written: u32) -> None:
    """Put a chain into the used ring, with the bytes written into it."""
    slot: u64 = queue.next_used & (queue.size - 1)
    guest_window.store_u32(at_offset(place.used, ELEMENTS + 8 * slot), head)
    guest_window.store_u32(at_offset(place.used, ELEMENTS + 8 * slot + 4), written)
    queue.next_used = queue.next_used + 1 & INDEX_MASK
    queue.in_flight -= 1
    guest_window.store_u16(at_offset(place.used, INDEX), u16(queue.next_used))


def fence() -> None:
    """What was stored is seen by other CPUs before what is loaded next is fetched."""
    atomic_or_u64(address(table), 0)


def interrupt_due(queue: Queue, place: Place, features: u64) -> bool:
    """After give_back: whether the driver wants to be interrupted for what it was given since the last call."""
    fence()
    before: u32 = queue.signalled
    queue.signalled = queue.next_used
    if features & FEATURE_EVENT_INDEX == 0:
        return guest_window.load_u16(at_offset(place.available, 0)) & NO_INTERRUPT == 0
    event: u32 = guest_window.load_u16(at_offset(place.available, ELEMENTS + 2 * u64(queue.size)))
    return wrap_u16(queue.next_used - event - 1) < wrap_u16(queue.next_used - before)


def ask_for_notification(queue: Queue, place: Place, features: u64) -> bool:
    """Let the driver notify when it offers the next chain. True: there is one already, and nobody may notify."""
    if features & FEATURE_EVENT_INDEX != 0:
        guest_window.store_u16(at_offset(place.used, ELEMENTS + 8 * u64(queue.size)), u16(queue.next_available))
    else:
        guest_window.store_u16(at_offset(place.used, 0), 0)
    fence()
    return not is_empty(queue, place)


def need_no_notification(place: Place, features: u64) -> None:
    """Let the driver notify nobody for now. (With event indexes it does not unless asked again.)"""
    if features & FEATURE_EVENT_INDEX == 0:
        guest_window.store_u16(at_offset(place.used, 0), NO_NOTIFY)
