"""The TLB of one fake CPU: it keeps every entry until it is told to drop it, as real ones may. Host code only.

Neither emulator shows a missing flush on the same CPU: QEMU and Bochs drop everything at each entry and exit. Entries carry
the tags of the manuals: under SVM the ASID (AMD APM vol. 2, 15.16); under VT-x nested ones the EPT pointer alone, those of
linear addresses the VPID and the EPT pointer (Intel SDM vol. 3C, 29.4.2).
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from hypervisor.addresses import Hpa, hva_of
from hypervisor.arch_x86.defs.svm import TLB_CONTROL_FLUSH_ALL, TLB_CONTROL_FLUSH_ASID
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.lang import read_memory
from hypervisor.memory.nested_walk import FRAME_BITS, LEVEL_BITS, ROOT_LEVEL

PRESENT = 1
WRITABLE = 2
"""Bits of an entry of nested tables, the same in both formats."""

Entry = tuple[int, bool]
"""Host frame, writable."""


class NestedPageFault(Exception):
    """The nested tables do not allow this access to this guest frame."""


@dataclass(frozen=True)
class Space:
    """Whose translations: the tag of linear addresses' (ASID, VPID), that of guest frames' (ASID, EPT pointer), and the tables."""

    linear: int
    nested: int
    root: int


def svm_space(vmcb: Vmcb) -> Space:
    """That of a VMCB."""
    if vmcb.guest_asid == 0:
        raise ValueError("VMRUN with ASID 0")
    return Space(vmcb.guest_asid, vmcb.guest_asid, vmcb.n_cr3)


def vtx_space(vpid: int, ept_pointer: int) -> Space:
    """That of a VMCS; of the EPT pointer only the table's address is in the tag."""
    if vpid == 0:
        raise ValueError("VM entry with VPID 0")
    return Space(vpid, ept_pointer & FRAME_BITS, ept_pointer & FRAME_BITS)


class TaggedTlb:
    """What one CPU holds."""

    def __init__(self) -> None:
        self.frames: dict[tuple[int, int], Entry] = {}  # by (nested tag, guest frame)
        self.pages: dict[tuple[int, int, int], Entry] = {}  # by (linear tag, nested tag, page)
        self.unnested: dict[tuple[int, int], Entry] = {}  # by (VPID, page): of guests without EPT, which Krait has none of
        self.hits = 0
        self.drops = 0

    def control(self, vmcb: Vmcb) -> None:
        """VMRUN does what TLB_CONTROL says."""
        if vmcb.tlb_control == TLB_CONTROL_FLUSH_ALL:
            self._drop(lambda linear, nested: True)
        elif vmcb.tlb_control == TLB_CONTROL_FLUSH_ASID:
            asid = vmcb.guest_asid
            self._drop(lambda linear, nested: nested == asid)

    def invept(self, kind: int, pointer: int) -> None:
        """INVEPT: 1 all that was made through this EPT pointer, whichever VPID it carries; 2 all."""
        root = pointer & FRAME_BITS
        self._drop(lambda linear, nested: kind == 2 or nested == root)

    def invvpid(self, kind: int, vpid: int) -> None:
        """INVVPID: 1 this VPID's linear addresses, 2 all VPIDs'. Guest frames stay."""
        self._drop(lambda linear, nested: linear is not None and (kind == 2 or linear == vpid))
        self.unnested = {key: entry for key, entry in self.unnested.items() if kind != 2 and key[0] != vpid}

    def _drop(self, stale: Callable[[int | None, int], bool]) -> None:
        self.drops += 1
        self.frames = {key: entry for key, entry in self.frames.items() if not stale(None, key[0])}
        self.pages = {key: entry for key, entry in self.pages.items() if not stale(key[0], key[1])}

    def reach(self, space: Space, gfn: int, write: bool) -> int:
        """The host frame that a guest reaches at `gfn`, from the TLB if it has it; NestedPageFault."""
        found = self.frames.get((space.nested, gfn))
        if found is None or (write and not found[1]):
            self.frames[space.nested, gfn] = found = _walk(space.root, gfn, write)
        else:
            self.hits += 1
        return found[0]

    def reach_linear(self, space: Space, page: int, gfn: int, write: bool) -> int:
        """The same at a page of linear addresses, which the guest's own tables map to `gfn` now."""
        found = self.pages.get((space.linear, space.nested, page))
        if found is None or (write and not found[1]):
            frame = self.reach(space, gfn, write)
            self.pages[space.linear, space.nested, page] = found = (frame, self.frames[space.nested, gfn][1])
        else:
            self.hits += 1
        return found[0]


def _walk(root: int, gfn: int, write: bool) -> Entry:
    """The tables themselves."""
    entry, writable = root, True
    for level in range(ROOT_LEVEL, -1, -1):
        index = gfn >> (LEVEL_BITS * level) & 511
        entry = read_memory(hva_of(Hpa(entry & FRAME_BITS)) + 8 * index, 8)
        writable = writable and entry & WRITABLE != 0
        if not entry & PRESENT or (write and not writable):
            raise NestedPageFault(gfn)
    return (entry & FRAME_BITS) >> 12, writable
