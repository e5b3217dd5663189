"""Nested page tables of a VM: create, map, look up, unmap, destroy. One walker for EPT and NPT (nested_walk.entry_format).

Tables are charged to vm.nested_frames against a quota that covers the VM's RAM, and stay until the VM is destroyed.
Unmapping raises vm.epoch and quarantines the frame; backend.enter flushes a vCPU that has not seen the epoch.
"""
from __future__ import annotations

from typing import Final

from hypervisor import kick
from hypervisor.addresses import PAGE_MASK, PAGE_SHIFT, Gfn, Gpa, Hfn, Hpa, Hva, hva_of
from hypervisor.arch_x86.intrinsics import load_u64, store_u64
from hypervisor.lang import address, u32, u64
from hypervisor.memory import frames, ledger
from hypervisor.memory.ledger import Kind, Use
from hypervisor.memory.nested_walk import (GFN_LIMIT, LEVEL_BITS, ROOT_LEVEL, TABLE_ENTRIES, entry_format, frame_of, leaf, present, spaces,
                                           table_at)
from hypervisor.model import MAX_VMS, Vm
from hypervisor.panic import panic
from hypervisor.status import Status

MAP_WRITE: Final = 1  # only for frames PRIVATE to this VM at this gfn
MAP_EXECUTE: Final = 2
ENTRY_BYTES: Final = 8
LEAVES_A_PIECE: Final = 128  # given back at a time: each takes about 250 instructions
TABLE_SLACK: Final = 16  # tables beyond what RAM needs: for places where nothing is (holes.py)


def table_quota(vm: Vm) -> u64:
    """How many table frames a VM may have: what its RAM needs at 4 KiB, and TABLE_SLACK."""
    entries: u64 = (vm.memory_bytes + PAGE_MASK) >> PAGE_SHIFT
    tables: u64 = TABLE_SLACK
    for _ in range(ROOT_LEVEL + 1):
        entries = (entries + TABLE_ENTRIES - 1) >> LEVEL_BITS
        tables += entries
    return tables


def state_map_frames(vm: Vm) -> u64:
    """Frames of the page state map: one byte a guest frame."""
    return ((vm.memory_bytes >> PAGE_SHIFT) + PAGE_MASK) >> PAGE_SHIFT


def create(vm: Vm) -> Status:
    """Give a VM (id and memory_bytes set, memory a multiple of 4 KiB) empty nested tables and a page state map.

    BAD_ARGUMENT: size of memory; NO_MEMORY; QUOTA: another VM has its id.
    """
    if vm.memory_bytes & PAGE_MASK != 0 or vm.memory_bytes == 0 or vm.memory_bytes >> PAGE_SHIFT > GFN_LIMIT:
        return Status.BAD_ARGUMENT
    if vm.id >= MAX_VMS or spaces.vms[vm.id] is not None:
        return Status.QUOTA
    root = frames.alloc_for(vm.id, Use.NESTED_TABLE)
    if root == 0:
        return Status.NO_MEMORY
    states = frames.alloc_contiguous_zeroed(state_map_frames(vm))
    if states == 0:
        frames.free(root)
        return Status.NO_MEMORY
    frames.zero(root)
    vm.nested_root = root
    vm.epoch = spaces.epoch  # younger than what an earlier VM of this number left in quarantine
    vm.nested_frames = 1
    vm.page_state_hva = hva_of(states)
    vm.overhead_frames += state_map_frames(vm)
    spaces.vms[vm.id] = vm
    spaces.count = u32(max(spaces.count, vm.id + 1))
    return Status.OK


def slot_of(vm: Vm, gfn: Gfn) -> Hva:
    """Where the 4 KiB leaf entry of `gfn` stands; makes the tables on the way. 0: no frame, or over quota. Fast.

    Nothing maps large pages yet: what splits them belongs here.
    """
    assert gfn < GFN_LIMIT
    entry: u64 = vm.nested_root
    shift: u32 = LEVEL_BITS * ROOT_LEVEL
    while shift > 0:
        place = Hva(hva_of(frame_of(entry)) + entry_offset(gfn, shift))
        entry = load_u64(place)
        if not present(entry):
            below = _new_table(vm)
            if below == 0:
                return Hva(0)
            entry = below | entry_format.table_bits
            store_u64(place, entry)
        shift = u32(shift - LEVEL_BITS)
    return Hva(hva_of(frame_of(entry)) + entry_offset(gfn, 0))


def entry_offset(gfn: Gfn, shift: u32) -> u64:
    """Where in its table the entry stands that leads to `gfn`; shift: LEVEL_BITS times the table's level."""
    return ((gfn >> (shift & 63)) & (TABLE_ENTRIES - 1)) * ENTRY_BYTES


def _new_table(vm: Vm) -> Hpa:
    """A zeroed table frame charged to the VM; 0: none, or over quota."""
    if vm.nested_frames >= table_quota(vm):
        return Hpa(0)
    hpa = frames.alloc_for(vm.id, Use.NESTED_TABLE)
    if hpa != 0:
        frames.zero(hpa)
        vm.nested_frames += 1
    return hpa


def leaf_bits(flags: u32) -> u64:
    """The rights of a leaf entry, MAP_* -> bits."""
    bits: u64 = entry_format.leaf_bits
    if flags & MAP_WRITE != 0:
        bits |= entry_format.write_bit
    return bits | (entry_format.execute_bit if flags & MAP_EXECUTE != 0 else entry_format.not_execute_bit)


def fill_slot(slot: Hva, vm: Vm, gfn: Gfn, hfn: Hfn, flags: u32) -> None:
    """Write the leaf entry at `slot` (from slot_of, not present): PRIVATE frames of this (vm, gfn), or SHARED ones unwritable."""
    entry = ledger.entry_of(hfn)
    if entry.kind == Kind.PRIVATE and entry.vm == vm.id and entry.value == gfn:
        vm.private_frames += 1
    elif entry.kind == Kind.SHARED and flags & MAP_WRITE == 0:
        ledger.share(hfn)
    else:
        _refuse(vm, gfn, hfn, flags)
    store_u64(slot, (hfn << PAGE_SHIFT) | leaf_bits(flags))


def _refuse(vm: Vm, gfn: Gfn, hfn: Hfn, flags: u32) -> None:
    """A mapping that the ledger forbids: our bug."""
    entry = ledger.entry_of(hfn)
    panic(f"nested: {ledger.KIND_NAMES[entry.kind]} frame {hfn:#x} (vm {entry.vm}, value {entry.value:#x}) mapped in vm {vm.id} "
          f"at gfn {gfn:#x} with flags {flags}")


def map(vm: Vm, gfn: Gfn, hfn: Hfn, flags: u32) -> Status:
    """Map one 4 KiB frame with MAP_* rights. BUSY: mapped already; NO_MEMORY: no frame for a table, or over quota."""
    slot = slot_of(vm, gfn)
    if slot == 0:
        return Status.NO_MEMORY
    if present(load_u64(slot)):
        return Status.BUSY
    fill_slot(slot, vm, gfn, hfn, flags)
    return Status.OK


def lookup(vm: Vm, gpa: Gpa) -> Hpa:
    """The host-physical address behind a guest-physical one; 0 if nothing is mapped there."""
    entry = leaf(vm.nested_root, Gfn(gpa >> PAGE_SHIFT))
    return Hpa(frame_of(entry) | (gpa & PAGE_MASK)) if entry != 0 else Hpa(0)


def unmap(vm: Vm, gfn: Gfn) -> Hfn:
    """Take one 4 KiB page out of a VM and quarantine its frame (SHARED: one reference less); 0 if nothing was mapped."""
    if gfn >= GFN_LIMIT or leaf(vm.nested_root, gfn) == 0:
        return Hfn(0)
    slot = slot_of(vm, gfn)
    hfn = Hfn(frame_of(load_u64(slot)) >> PAGE_SHIFT)
    store_u64(slot, 0)
    _raise_epoch(vm)
    _put_away(vm, gfn, hfn)
    return hfn


def _raise_epoch(vm: Vm) -> None:
    """What was mapped may be used no more: each vCPU of the VM is flushed before it enters again."""
    spaces.epoch += 1
    vm.epoch = spaces.epoch
    kick.flush(vm)


def _put_away(vm: Vm, gfn: Gfn, hfn: Hfn) -> None:
    """Ledger's side of unmapping one leaf; the epoch has been raised, or nobody runs."""
    if ledger.kind_of(hfn) == Kind.PRIVATE:
        ledger.quarantine(hfn, vm, gfn)
        vm.private_frames -= 1
    else:
        ledger.unshare(hfn)


def destroy(vm: Vm) -> None:
    """Give back all RAM and tables of a VM that will not run again, and its page state map."""
    while not destroy_some(vm):
        pass


def destroy_some(vm: Vm) -> bool:
    """A bounded part of destroy (some leaves, or an empty table); True once nothing is left.

    A VM without tables is done already.
    """
    if vm.nested_root == 0:
        return True
    if not empty_some(vm):
        return False
    frames.free(vm.nested_root)
    vm.nested_frames -= 1
    _leave(vm)
    return True


def empty_some(vm: Vm) -> bool:
    """A bounded part of giving back RAM and tables (some leaves, or an empty table); True once only the root is left, empty.

    Root and page state map stay: a VM that reboots cannot find itself without them.
    """
    table_hpa = vm.nested_root
    parent_slot = Hva(0)
    gfn: u64 = 0
    level: u32 = ROOT_LEVEL
    while level > 0:
        index = _first_present(table_hpa)
        if index == TABLE_ENTRIES:
            break
        gfn |= u64(index) << ((LEVEL_BITS * level) & 63)
        parent_slot = Hva(hva_of(table_hpa) + u64(index) * ENTRY_BYTES)
        table_hpa = frame_of(load_u64(parent_slot))
        level = u32(level - 1)
    if parent_slot == 0:
        return True
    if level == 0 and not _destroy_leaves(vm, table_hpa, gfn):
        return False
    frames.free(table_hpa)
    vm.nested_frames -= 1
    store_u64(parent_slot, 0)
    return False


def _first_present(table_hpa: Hpa) -> u32:
    """Index of a table's first present entry, TABLE_ENTRIES if it is empty."""
    table = table_at(table_hpa)
    index: u32 = 0
    while index < TABLE_ENTRIES and not present(table.entries[index]):
        index = u32(index + 1)
    return index


def _destroy_leaves(vm: Vm, table_hpa: Hpa, first: u64) -> bool:
    """Unmap up to LEAVES_A_PIECE leaves of one table, whose first entry maps gfn `first`; True: it has no more. The epoch stays: no CPU
    runs the VM, and a vCPU that will is a new one, which finds no translation of its own on any."""
    table = table_at(table_hpa)
    left: u32 = LEAVES_A_PIECE
    for index in range(TABLE_ENTRIES):
        entry: u64 = table.entries[index]
        if present(entry):
            if left == 0:
                return False
            left -= 1
            table.entries[index] = 0
            _put_away(vm, Gfn(first + index), Hfn(frame_of(entry) >> PAGE_SHIFT))
            ledger.settle(1)
    return True


def _leave(vm: Vm) -> None:
    """Last step of destroy: the root is gone."""
    vm.nested_root = Hpa(0)
    frames.free_contiguous(Hpa(vm.page_state_hva), state_map_frames(vm))
    vm.overhead_frames -= state_map_frames(vm)
    vm.page_state_hva = Hva(0)
    spaces.vms[vm.id] = None
