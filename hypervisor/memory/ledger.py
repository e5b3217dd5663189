"""The ledger: one entry for each frame of memory, and every transition a frame can make.

    RESERVED (holes, firmware)      FREE -> HYPERVISOR -> FREE
    FREE -> PRIVATE(vm, gfn) -> QUARANTINED(epoch) -> FREE        FREE -> SHARED(references) -> FREE

A frame is writable in at most one VM: only PRIVATE frames are mapped writable, at the one (vm, gfn) that stands in their
entry. Each transition checks the state it starts from; a wrong one is our bug and panics. ledger_check.py compares all
entries with all nested tables. Entries of FREE frames form a doubly linked list, so the frames themselves are not touched.
"""
from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hypervisor.addresses import Gfn, Hfn, Hva
from hypervisor.cpu import cpus, online, this_cpu
from hypervisor.lang import at, struct, u8, u16, u32, u64
from hypervisor.model import Vm
from hypervisor.panic import panic

ENTRY_BYTES: Final = 16
KINDS: Final = 8
NO_VM: Final = 0xFFFF
MAX_PINS: Final = 255


class Kind(IntEnum):
    """What a frame is used for."""

    RESERVED = 0  # not usable memory: holes, firmware, devices' windows
    FREE = 1
    HYPERVISOR = 2  # hypervisor image, ledger, VM and vCPU structures, nested tables
    PRIVATE = 3  # RAM of one VM
    SHARED = 4  # mapped read-only in any number of VMs
    GRANTED = 5  # a hypervisor page mapped for one VM
    DEVICE = 6  # a device's memory handed to one VM
    QUARANTINED = 7  # unmapped; some CPU may still hold a translation


KIND_NAMES: Final[Annotated[list[str], KINDS]] = [
    "reserved", "free", "hypervisor", "private", "shared", "granted", "device", "quarantined"]


class Use(IntEnum):
    """What a HYPERVISOR frame is used for (its entry's value)."""

    OTHER = 0
    NESTED_TABLE = 1


@struct
class Entry:
    """State of one frame, 16 bytes."""

    kind: u8
    pins: u8  # transfers in flight: not freed before they are done
    vm: u16  # id of the VM that is charged, NO_VM
    next: u32  # FREE, QUARANTINED: next frame in the list, 0: last
    # FREE: previous frame (means nothing in the first); PRIVATE: gfn; SHARED: references; QUARANTINED: epoch; HYPERVISOR: Use
    value: u64


@struct
class Book:
    """The whole ledger."""

    entries: Hva
    limit: u64  # entries: frames [0, limit)
    usable: u64  # frames that are not RESERVED
    counts: Annotated[list[u64], KINDS]
    first_free: u32  # 0: none (frame 0 is never handed out)
    first_quarantined: u32
    last_quarantined: u32
    changes: u64  # transitions so far: lets a chunked check notice that the totals moved


book: Final = Book()


def entry_of(hfn: Hfn) -> Entry:
    """The entry of a frame below book.limit."""
    if hfn >= book.limit:
        _beyond(hfn)
    return at(Entry, Hva(book.entries + hfn * ENTRY_BYTES))


def kind_of(hfn: Hfn) -> Kind:
    """What the frame is; RESERVED beyond the ledger's end."""
    if hfn >= book.limit:
        return Kind.RESERVED
    return Kind(entry_of(hfn).kind)


def _beyond(hfn: Hfn) -> None:
    """No such frame: our bug. (Apart, as _refuse, so that frequent paths do not set up room for the text.)"""
    panic(f"ledger: frame {hfn:#x} is beyond the ledger's {book.limit:#x} frames")


def _refuse(hfn: Hfn, entry: Entry, wanted: str) -> None:
    """A transition from the wrong state: our bug."""
    panic(f"ledger: frame {hfn:#x} is {KIND_NAMES[entry.kind]} (vm {entry.vm}, value {entry.value:#x}), not {wanted}")


def _turn(entry: Entry, kind: Kind) -> None:
    """Change an entry's kind and the counts."""
    book.counts[entry.kind] -= 1
    book.counts[kind] += 1
    book.changes += 1
    entry.kind = u8(kind)


def _link_free(hfn: Hfn, entry: Entry) -> None:
    """Put an entry that has just become FREE at the head of the list."""
    first = book.first_free
    entry.vm = NO_VM
    entry.next = first
    if first != 0:
        entry_of(Hfn(first)).value = hfn
    book.first_free = u32(hfn)


def claim(hfn: Hfn, kind: Kind, vm_id: u32, value: u64) -> None:
    """FREE -> HYPERVISOR, for a frame chosen by frames.alloc_contiguous."""
    entry = entry_of(hfn)
    if entry.kind != Kind.FREE:
        _refuse(hfn, entry, "free")
    if book.first_free == hfn:
        book.first_free = entry.next
    else:
        entry_of(Hfn(entry.value)).next = entry.next
        if entry.next != 0:
            entry_of(Hfn(entry.next)).value = entry.value
    entry.vm = u16(vm_id)
    entry.value = value
    _turn(entry, kind)


def claim_first(kind: Kind, vm_id: u32, value: u64) -> Hfn:
    """FREE -> HYPERVISOR, PRIVATE or SHARED for the first free frame; 0 if there is none. Only frames.py, and guest_pages.py at boot, call this. Fast."""
    hfn = Hfn(book.first_free)
    if hfn == 0:
        return hfn
    entry = at(Entry, Hva(book.entries + hfn * ENTRY_BYTES))  # what is in the list is below the limit
    if entry.kind != Kind.FREE:
        _refuse(hfn, entry, "free")
    book.first_free = entry.next
    entry.vm = u16(vm_id)
    entry.value = value
    _turn(entry, kind)
    return hfn


def release(hfn: Hfn) -> None:
    """HYPERVISOR -> FREE, or SHARED -> FREE once nobody refers to it."""
    entry = entry_of(hfn)
    if entry.kind != Kind.HYPERVISOR and not (entry.kind == Kind.SHARED and entry.value == 0):
        _refuse(hfn, entry, "hypervisor or unreferenced")
    if entry.pins != 0:
        _refuse(hfn, entry, "unpinned")
    _turn(entry, Kind.FREE)
    _link_free(hfn, entry)


def quarantine(hfn: Hfn, vm: Vm, gfn: Gfn) -> None:
    """PRIVATE(vm, gfn) -> QUARANTINED(vm.epoch): the frame has just been unmapped and the epoch raised."""
    entry = entry_of(hfn)
    if entry.kind != Kind.PRIVATE or entry.vm != vm.id or entry.value != gfn:
        _refuse(hfn, entry, f"private to vm {vm.id} at gfn {gfn:#x}")
    _turn(entry, Kind.QUARANTINED)
    entry.value = vm.epoch
    entry.next = 0
    if book.last_quarantined == 0:
        book.first_quarantined = u32(hfn)
    else:
        entry_of(Hfn(book.last_quarantined)).next = u32(hfn)
    book.last_quarantined = u32(hfn)


def settle(most: u32) -> u64:
    """QUARANTINED -> FREE for those of up to `most` frames whose epoch every CPU has seen; how many became free.

    A vCPU is flushed before it enters a guest if its seen_epoch is older than its VM's epoch. So a translation of a frame can
    be used only on another CPU that runs a vCPU of that VM and has not come back since the unmap: such a frame stays, at the
    end of the queue, as one does that a transfer pins.
    """
    freed: u64 = 0
    for _ in range(most):
        hfn = Hfn(book.first_quarantined)
        if hfn == 0:
            break
        entry = entry_of(hfn)
        book.first_quarantined = entry.next
        if entry.next == 0:
            book.last_quarantined = 0
        entry.next = 0
        if entry.pins != 0 or _is_reachable(entry):
            if book.last_quarantined == 0:
                book.first_quarantined = u32(hfn)
            else:
                entry_of(Hfn(book.last_quarantined)).next = u32(hfn)
            book.last_quarantined = u32(hfn)
            continue
        _turn(entry, Kind.FREE)
        _link_free(hfn, entry)
        freed += 1
    return freed


def _is_reachable(entry: Entry) -> bool:
    """Whether another CPU may be in a guest with a translation of this QUARANTINED frame."""
    for i in range(online.count):
        running = cpus[i].vcpu
        if running is not None and running.seen_epoch < entry.value and cpus[i] != this_cpu():
            owner = running.vm
            if owner is not None and owner.id == entry.vm:
                return True
    return False


def share(hfn: Hfn) -> None:
    """One more read-only mapping of a SHARED frame."""
    entry = entry_of(hfn)
    if entry.kind != Kind.SHARED:
        _refuse(hfn, entry, "shared")
    entry.value += 1
    book.changes += 1


def unshare(hfn: Hfn) -> None:
    """One read-only mapping of a SHARED frame less."""
    entry = entry_of(hfn)
    if entry.kind != Kind.SHARED or entry.value == 0:
        _refuse(hfn, entry, "shared and referenced")
    entry.value -= 1
    book.changes += 1


def pin(hfn: Hfn) -> bool:
    """Hold a PRIVATE frame for a transfer in flight, even past its VM's end; False if too many hold it."""
    entry = entry_of(hfn)
    if entry.kind != Kind.PRIVATE:
        _refuse(hfn, entry, "private")
    if entry.pins == MAX_PINS:
        return False
    entry.pins += 1
    return True


def unpin(hfn: Hfn) -> None:
    """A transfer is done."""
    entry = entry_of(hfn)
    if entry.pins == 0:
        _refuse(hfn, entry, "pinned")
    entry.pins -= 1


def start(entries: Hva, limit: u64) -> None:
    """Begin with `limit` zeroed entries (all RESERVED) at `entries`. Boot only."""
    book.entries = entries
    book.limit = limit
    book.usable = 0
    for kind in range(KINDS):
        book.counts[kind] = 0
    book.counts[Kind.RESERVED] = limit
    book.first_free = 0
    book.first_quarantined = 0
    book.last_quarantined = 0


def add(hfn: Hfn, kind: Kind) -> None:
    """RESERVED -> FREE or HYPERVISOR: usable memory found. Boot only; a frame that is known already stays as it is."""
    entry = entry_of(hfn)
    if entry.kind != Kind.RESERVED:
        return
    entry.vm = NO_VM
    _turn(entry, kind)
    book.usable += 1
    if kind == Kind.FREE:
        _link_free(hfn, entry)
