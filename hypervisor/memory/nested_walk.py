"""Nested page tables (EPT, NPT), read only: their format and how to find an entry. Nothing here allocates.

Both formats are radix trees of four levels, 512 entries of 8 bytes (Intel SDM vol. 3C, 29.3.2; AMD APM vol. 2, 15.25);
they differ only in bits, which the backend states once in `entry_format`.
"""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor.addresses import Gfn, Hpa, hva_of
from hypervisor.lang import at, struct, u32, u64
from hypervisor.model import MAX_VMS, Vm

TABLE_ENTRIES: Final = 512
LEVEL_BITS: Final = 9
ROOT_LEVEL: Final = 3  # level 0 maps 4 KiB, 1 2 MiB, 2 1 GiB
GFN_LIMIT: Final[u64] = 1 << 36  # four levels reach 48 bits of guest-physical address
FRAME_BITS: Final[u64] = 0x000F_FFFF_FFFF_F000  # where both formats keep the frame's address


@struct
class EntryFormat:
    """What the bits of an entry mean; filled by the backend before the first nested.create."""

    present_mask: u64  # an entry is present if any of these bits is set
    table_bits: u64  # ORed into the address of a lower table: all rights
    leaf_bits: u64  # ORed into the address of a RAM frame: readable, write-back
    write_bit: u64  # set: writable
    execute_bit: u64  # set: executable (EPT); 0 where not_execute_bit is used
    not_execute_bit: u64  # set: not executable (NPT); 0 where execute_bit is used
    large_bit: u64  # set in a level 1 or 2 entry: maps 2 MiB or 1 GiB
    accessed_bit: u64
    dirty_bit: u64


@struct
class Table:
    """One table page."""

    entries: Annotated[list[u64], TABLE_ENTRIES]


@struct
class AddressSpaces:
    """Every VM that has nested tables, by id: nested.create enters it, nested.destroy takes it out."""

    vms: Annotated[list[Vm | None], MAX_VMS]
    count: u32  # places behind have had no VM yet
    epoch: u64  # of the latest unmap, whichever VM's: ledger.settle


entry_format: Final = EntryFormat()
spaces: Final = AddressSpaces()


def table_at(hpa: Hpa) -> Table:
    """The table page at a host-physical address."""
    return at(Table, hva_of(hpa))


def present(entry: u64) -> bool:
    """Whether an entry points to a table or a frame."""
    return entry & entry_format.present_mask != 0


def frame_of(entry: u64) -> Hpa:
    """The host-physical address that a present entry holds."""
    return Hpa(entry & FRAME_BITS)


def index_of(gfn: Gfn, level: u32) -> u32:
    """Which entry of the table at `level` leads to `gfn`."""
    return u32((gfn >> ((LEVEL_BITS * level) & 63)) & (TABLE_ENTRIES - 1))


def leaf(root: Hpa, gfn: Gfn) -> u64:
    """The entry that maps `gfn`, 0 if none does. A large entry comes back as that of its 4 KiB piece, large bit clear."""
    if gfn >= GFN_LIMIT:
        return 0
    table = root
    level: u32 = ROOT_LEVEL
    while level > 0:
        entry: u64 = table_at(table).entries[index_of(gfn, level)]
        if not present(entry):
            return 0
        if entry & entry_format.large_bit != 0 and level < ROOT_LEVEL:
            within: u64 = gfn & ((u64(1) << ((LEVEL_BITS * level) & 63)) - 1)
            return (entry & ~entry_format.large_bit) + (within << 12)
        table = frame_of(entry)
        level = u32(level - 1)
    entry = table_at(table).entries[index_of(gfn, 0)]
    return entry if present(entry) else 0


def vm_of(id_: u64) -> Vm | None:
    """The VM with nested tables that has this id, or None."""
    return spaces.vms[id_] if id_ < MAX_VMS else None
