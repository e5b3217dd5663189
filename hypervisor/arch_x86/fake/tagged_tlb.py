"""A TLB for the fake machine that keeps every entry until it is flushed, by ASID, as real ones may. Host code only.

Neither emulator shows a missing flush on the same CPU: QEMU and Bochs drop everything at each entry and exit. Attach it as
`machine.guest_runs = tlb.entered` and let `tlb.guest` touch memory by `tlb.touch`.
"""
from __future__ import annotations

from typing import Callable

from hypervisor.addresses import Hpa, hva_of
from hypervisor.arch_x86.defs.svm import TLB_CONTROL_FLUSH_ALL, TLB_CONTROL_FLUSH_ASID
from hypervisor.arch_x86.svm import nested_format as npt
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.lang import at, read_memory
from hypervisor.memory.nested_walk import FRAME_BITS, LEVEL_BITS, ROOT_LEVEL


class NestedPageFault(Exception):
    """#VMEXIT_NPF at this guest frame."""


class TaggedTlb:
    """Translations (ASID, guest frame) -> (host frame, writable)."""

    def __init__(self) -> None:
        self.entries: dict[tuple[int, int], tuple[int, bool]] = {}
        self.vmcb = Vmcb()
        self.guest: Callable[[], None] | None = None
        self.hits = 0
        self.flushes = 0

    def entered(self, registers: int, guest: int) -> None:
        """VMRUN: flush as TLB_CONTROL says, then run `guest` (AMD APM vol. 2, 15.16)."""
        self.vmcb = at(Vmcb, hva_of(Hpa(guest)))
        if self.vmcb.guest_asid == 0:
            raise ValueError("VMRUN with ASID 0")
        if self.vmcb.tlb_control == TLB_CONTROL_FLUSH_ALL:
            self.flushes += 1
            self.entries.clear()
        elif self.vmcb.tlb_control == TLB_CONTROL_FLUSH_ASID:
            self.flushes += 1
            self.entries = {key: value for key, value in self.entries.items() if key[0] != self.vmcb.guest_asid}
        if self.guest is not None:
            self.guest()

    def touch(self, gfn: int, write: bool) -> int:
        """The host frame that the running guest reaches at `gfn`, from the TLB if it has it; NestedPageFault."""
        key = (self.vmcb.guest_asid, gfn)
        found = self.entries.get(key)
        if found is None or (write and not found[1]):
            self.entries[key] = found = self._walk(gfn, write)
        else:
            self.hits += 1
        return found[0]

    def _walk(self, gfn: int, write: bool) -> tuple[int, bool]:
        entry, writable = self.vmcb.n_cr3, True
        for level in range(ROOT_LEVEL, -1, -1):
            index = gfn >> (LEVEL_BITS * level) & 511
            entry = read_memory(hva_of(Hpa(entry & FRAME_BITS)) + 8 * index, 8)
            writable = writable and entry & npt.RW != 0
            if not entry & npt.P or (write and not writable):
                raise NestedPageFault(gfn)
        return (entry & FRAME_BITS) >> 12, writable
