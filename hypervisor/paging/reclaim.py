"""Taking frames whose guest has said that their contents may go: UNUSED pages first, VOLATILE ones after them."""
from __future__ import annotations

from typing import Final

from hypervisor.abi import PageState
from hypervisor.addresses import PAGE_SHIFT, Gfn, Hva
from hypervisor.arch_x86.intrinsics import load_u64
from hypervisor.lang import struct, u8, u64
from hypervisor.memory import ledger, nested
from hypervisor.memory.nested_walk import spaces
from hypervisor.model import Vm
from hypervisor.paging import page_state

PAGES_A_WORD: Final = 8
SCAN_WORDS: Final = 1024  # words of page states looked at in one call, for all VMs together
TAKE_MOST: Final = 48  # frames taken in one call


@struct
class Effort:
    """What the call under way has done."""

    looked: u64  # words
    taken: u64  # frames


effort: Final = Effort()


def reclaim(wanted: u64) -> u64:
    """Take up to `wanted` frames (and at most TAKE_MOST) from all VMs; how many. Bounded: call again for more."""
    most: u64 = wanted if wanted < TAKE_MOST else TAKE_MOST
    effort.looked = 0
    effort.taken = 0
    for place in range(spaces.count):
        vm = spaces.vms[place]
        if vm is not None and vm.unused_pages != 0:
            _scan(vm, PageState.UNUSED, most)
    for place in range(spaces.count):
        vm = spaces.vms[place]
        if vm is not None and vm.volatile_pages != 0:
            _scan(vm, PageState.VOLATILE, most)
    if effort.taken != 0:
        ledger.settle(TAKE_MOST)
    return effort.taken


def _scan(vm: Vm, state: PageState, most: u64) -> None:
    """Take frames of pages in `state` from one VM, going round its memory from vm.reclaim_next, once at most."""
    words: u64 = ((vm.memory_bytes >> PAGE_SHIFT) + PAGES_A_WORD - 1) // PAGES_A_WORD
    left: u64 = words
    while left != 0 and effort.looked < SCAN_WORDS and effort.taken < most:
        word: u64 = vm.reclaim_next // PAGES_A_WORD
        if word >= words:
            word = 0
        # The map is whole frames, so the last word may be read in full; bytes behind the memory are zero (STABLE).
        states: u64 = load_u64(Hva(vm.page_state_hva + word * PAGES_A_WORD))
        if states != 0:
            _take_word(vm, state, word * PAGES_A_WORD, states)
        vm.reclaim_next = (word + 1) * PAGES_A_WORD
        effort.looked += 1
        left -= 1


def _take_word(vm: Vm, state: PageState, first: u64, states: u64) -> None:
    """Take the frames of those of eight pages from `first` whose bytes in `states` are `state`."""
    for place in range(PAGES_A_WORD):
        if (states >> ((place * 8) & 63)) & 0xFF == state:
            gfn = Gfn(first + place)
            if nested.unmap(vm, gfn) != 0:
                effort.taken += 1
            page_state.put(vm, gfn, u8(page_state.RELEASED | state))
