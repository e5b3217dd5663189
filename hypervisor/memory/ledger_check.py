"""Is the ledger true? Every entry against the nested tables, every leaf and table against its entry, lists and counts.

`check` does it all at once (operator's command, tests, after each VM's end); `step` does a bounded part (below 50 k
instructions), so that debug images can go round all the time. What was counted over several steps is compared
only if no frame changed hands meanwhile.
"""
from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hypervisor import clock
from hypervisor.addresses import PAGE_SHIFT, Gfn, Hfn, Hpa
from hypervisor.console import say
from hypervisor.lang import struct, u32, u64
from hypervisor.memory import ledger
from hypervisor.memory.ledger import KIND_NAMES, KINDS, Entry, Kind, Use, book
from hypervisor.memory.nested_walk import (GFN_LIMIT, LEVEL_BITS, ROOT_LEVEL, TABLE_ENTRIES, entry_format, frame_of, index_of,
                                           leaf, present, spaces, table_at, vm_of)
from hypervisor.model import Vm
from hypervisor.panic import panic

ENTRIES_A_STEP: Final = 256
LIST_A_STEP: Final = 1024
DESCENTS_A_STEP: Final = 128
TURN_SHARE: Final = 64  # in_turn takes one 64th of the time
ERRORS_SHOWN: Final = 8


class Phase(IntEnum):
    """What a check is looking at."""

    DONE = 0
    ENTRIES = 1
    FREE_LIST = 2
    TABLES = 3
    TOTALS = 4


@struct
class Progress:
    """How far the check is."""

    phase: Phase
    changes: u64  # book.changes when the check began
    errors: u64
    frame: u64  # ENTRIES: next frame; FREE_LIST: next in the list
    listed: u64
    counts: Annotated[list[u64], KINDS]
    place: u32  # TABLES: index in spaces.vms
    gfn: u64  # TABLES: next guest frame
    tables: u64  # of this VM
    private: u64  # leaves of this VM that map PRIVATE frames
    references: u64  # to SHARED frames, as their entries say
    shared: u64  # leaves of all VMs that map SHARED frames
    next_turn: u64  # host TSC before which in_turn does nothing
    rounds: u64  # checks that in_turn has completed
    last_vm: Vm | None  # the VM that the latest PRIVATE entry named


progress: Final = Progress()


def _error(text: str) -> None:
    """Something does not hold."""
    progress.errors += 1
    if progress.errors == 1:
        say("ledger: BROKEN")
    if progress.errors <= ERRORS_SHOWN:
        say(f"ledger: {text}")


def begin() -> None:
    """Start a check from the beginning."""
    progress.phase = Phase.ENTRIES
    progress.changes = book.changes
    progress.errors = 0
    progress.frame = 0
    progress.place = 0
    progress.gfn = 0
    progress.tables = 0
    progress.private = 0
    progress.references = 0
    progress.shared = 0
    progress.last_vm = None
    for kind in range(KINDS):
        progress.counts[kind] = 0


def step() -> bool:
    """Go on with the check for less than 50 k instructions; True once it is complete (progress.errors tells)."""
    if progress.phase == Phase.ENTRIES:
        _step_entries()
    elif progress.phase == Phase.FREE_LIST:
        _step_free_list()
    elif progress.phase == Phase.TABLES:
        _step_tables()
    elif progress.phase == Phase.TOTALS:
        if progress.changes == book.changes:
            _check_totals()
        progress.phase = Phase.DONE
    return progress.phase == Phase.DONE


def check() -> u64:
    """The full check, and one line that tells; number of errors. Not bounded."""
    begin()
    while not step():
        pass
    if progress.errors == 0:
        say(f"ledger: ok, {book.usable} frames: {book.counts[Kind.FREE]} free, {book.counts[Kind.HYPERVISOR]} hypervisor, "
            f"{book.counts[Kind.PRIVATE]} private")
    else:
        say(f"ledger: BROKEN, {progress.errors} errors")
    return progress.errors


def in_turn() -> None:
    """Debug images, between slices: go on with a check, in a small share of the time. Panics if something does not hold."""
    now: u64 = clock.now()
    if now < progress.next_turn:
        return
    if progress.phase == Phase.DONE:
        begin()
    progress.last_vm = None  # it may have gone since
    if step():
        if progress.errors != 0:
            panic(f"ledger: {progress.errors} errors, told above")
        progress.rounds += 1
    progress.next_turn = now + (clock.now() - now) * TURN_SHARE


def _step_entries() -> None:
    """Some entries, each against what it refers to."""
    for _ in range(ENTRIES_A_STEP):
        if progress.frame == book.limit:
            progress.phase = Phase.FREE_LIST
            progress.frame = book.first_free
            progress.listed = 0
            return
        hfn = Hfn(progress.frame)
        entry = ledger.entry_of(hfn)
        if entry.kind >= KINDS:
            _error(f"frame {hfn:#x} has the unknown kind {entry.kind}")
        else:
            progress.counts[entry.kind] += 1
            _check_entry(hfn, entry)
        progress.frame += 1


def _check_entry(hfn: Hfn, entry: Entry) -> None:
    """One entry of a known kind."""
    if entry.kind == Kind.PRIVATE:
        vm = _owner(entry)
        if vm is None:
            _error(f"frame {hfn:#x} is private to vm {entry.vm}, which has no nested tables")
        elif frame_of(leaf(vm.nested_root, Gfn(entry.value))) >> PAGE_SHIFT != hfn:
            _error(f"frame {hfn:#x} is private to vm {entry.vm} at gfn {entry.value:#x}, not mapped there")
    elif entry.kind == Kind.FREE:
        before: u64 = hfn
        if book.first_free != hfn:
            before = ledger.entry_of(Hfn(entry.value)).next if entry.value < book.limit else 0
        if before != hfn or (entry.next != 0 and ledger.entry_of(Hfn(entry.next)).value != hfn):
            _error(f"frame {hfn:#x} is free, but its neighbours in the list do not say so")
        if entry.pins != 0:
            _error(f"frame {hfn:#x} is free and pinned")
    elif entry.kind == Kind.SHARED:
        progress.references += entry.value
    elif entry.kind == Kind.HYPERVISOR and entry.value == Use.NESTED_TABLE and _owner(entry) is None:
        _error(f"frame {hfn:#x} is a nested table of vm {entry.vm}, which has none")


def _owner(entry: Entry) -> Vm | None:
    """The VM that an entry names; mostly the same as the entry before named."""
    vm = progress.last_vm
    if vm is None or vm.id != entry.vm or vm.nested_root == 0:
        vm = vm_of(entry.vm)
        progress.last_vm = vm
    return vm


def _step_free_list() -> None:
    """Some of the free list; left alone once a frame has changed hands."""
    for _ in range(LIST_A_STEP):
        if progress.changes != book.changes or progress.frame == 0 or progress.listed > book.counts[Kind.FREE]:
            if progress.changes == book.changes and progress.listed != book.counts[Kind.FREE]:
                _error(f"the free list has {progress.listed} frames or more, {book.counts[Kind.FREE]} are counted")
            progress.phase = Phase.TABLES
            return
        if ledger.kind_of(Hfn(progress.frame)) != Kind.FREE:
            _error(f"frame {progress.frame:#x} is in the free list and not free")
            progress.phase = Phase.TABLES
            return
        progress.listed += 1
        progress.frame = ledger.entry_of(Hfn(progress.frame)).next


def _step_tables() -> None:
    """Some of one VM's nested tables: ends after the first table of leaves."""
    while progress.place < spaces.count and spaces.vms[progress.place] is None:
        progress.place += 1
        progress.gfn = 0
    if progress.place >= spaces.count:
        progress.phase = Phase.TOTALS
        return
    vm = spaces.vms[progress.place]
    assert vm is not None
    for _ in range(DESCENTS_A_STEP):
        if progress.gfn >= GFN_LIMIT:
            _check_vm_totals(vm)
            progress.place += 1
            progress.gfn = 0
            progress.tables = 0
            progress.private = 0
            return
        if _descend(vm):
            return


def _descend(vm: Vm) -> bool:
    """From the root to the leaves at progress.gfn, or to where there are none, and on behind that; True: leaves checked."""
    table: Hpa = vm.nested_root
    level: u32 = ROOT_LEVEL
    _check_table(vm, table, level)
    while level > 0:
        entry: u64 = table_at(table).entries[index_of(Gfn(progress.gfn), level)]
        if not present(entry):
            progress.gfn = ((progress.gfn >> ((LEVEL_BITS * level) & 63)) + 1) << ((LEVEL_BITS * level) & 63)
            return False
        if entry & entry_format.large_bit != 0 and level < ROOT_LEVEL:
            _error(f"vm {vm.id} has a large page at gfn {progress.gfn:#x}")
            progress.gfn = ((progress.gfn >> ((LEVEL_BITS * level) & 63)) + 1) << ((LEVEL_BITS * level) & 63)
            return False
        table = frame_of(entry)
        level = u32(level - 1)
        if not _check_table(vm, table, level):
            progress.gfn = ((progress.gfn >> LEVEL_BITS) + 1) << LEVEL_BITS
            return False
    for index in range(TABLE_ENTRIES):
        entry = table_at(table).entries[index]
        if present(entry):
            _check_leaf(vm, Gfn(progress.gfn + index), entry)
    progress.gfn += TABLE_ENTRIES
    return True


def _check_table(vm: Vm, table: Hpa, level: u32) -> bool:
    """A table page belongs to the VM; counted when progress.gfn is the first that it covers. False: do not look inside."""
    hfn = Hfn(table >> PAGE_SHIFT)
    covered: u32 = LEVEL_BITS * (level + 1)
    if progress.gfn & ((u64(1) << (covered & 63)) - 1) != 0:
        return True
    progress.tables += 1
    if ledger.kind_of(hfn) == Kind.HYPERVISOR:
        entry = ledger.entry_of(hfn)
        if entry.value == Use.NESTED_TABLE and entry.vm == vm.id:
            return True
    _error(f"vm {vm.id} uses frame {hfn:#x} ({KIND_NAMES[ledger.kind_of(hfn)]}) as a nested table")
    return False


def _check_leaf(vm: Vm, gfn: Gfn, leaf_entry: u64) -> None:
    """One mapped page of a VM."""
    hfn = Hfn(frame_of(leaf_entry) >> PAGE_SHIFT)
    kind = ledger.kind_of(hfn)
    if kind == Kind.PRIVATE:
        progress.private += 1
        entry = ledger.entry_of(hfn)
        if entry.vm != vm.id or entry.value != gfn:
            _error(f"vm {vm.id} maps frame {hfn:#x} at gfn {gfn:#x}; it is private to vm {entry.vm} at {entry.value:#x}")
        if gfn >= vm.memory_bytes >> PAGE_SHIFT:
            _error(f"vm {vm.id} has a frame at gfn {gfn:#x}, beyond its memory")
    elif kind == Kind.SHARED:
        progress.shared += 1
        if leaf_entry & entry_format.write_bit != 0:
            _error(f"vm {vm.id} may write the shared frame {hfn:#x} at gfn {gfn:#x}")
    else:
        _error(f"vm {vm.id} maps the {KIND_NAMES[kind]} frame {hfn:#x} at gfn {gfn:#x}")


def _check_vm_totals(vm: Vm) -> None:
    """What was counted in one VM's tables."""
    if progress.changes != book.changes:
        return
    if progress.tables != vm.nested_frames:
        _error(f"vm {vm.id} has {progress.tables} nested tables, {vm.nested_frames} are charged")
    if progress.private != vm.private_frames:
        _error(f"vm {vm.id} maps {progress.private} private frames, {vm.private_frames} are charged")


def _check_totals() -> None:
    """What was counted over all entries."""
    usable: u64 = 0
    for kind in range(KINDS):
        if progress.counts[kind] != book.counts[kind]:
            _error(f"{progress.counts[kind]} frames are {KIND_NAMES[kind]}, {book.counts[kind]} are counted")
        if kind != Kind.RESERVED:
            usable += progress.counts[kind]
    if usable != book.usable:
        _error(f"{usable} frames are usable, there were {book.usable}")
    if progress.references != progress.shared:
        _error(f"shared frames have {progress.references} references, {progress.shared} are mapped")
    charged: u64 = 0
    for place in range(spaces.count):
        vm = spaces.vms[place]
        if vm is not None:
            charged += vm.private_frames
    if charged != book.counts[Kind.PRIVATE]:
        _error(f"VMs are charged {charged} private frames, {book.counts[Kind.PRIVATE]} exist")
