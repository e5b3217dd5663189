"""What a guest says of its pages (abi.PageState): one byte a guest frame at vm.page_state_hva, charged to the VM.

UNUSED pages may lose their frame at any time under pressure, VOLATILE ones after those: such a page reads zero when
it is touched next, and is STABLE from then on. COLD is recorded for policies. Touching a page that was released, or
handing one to the hypervisor in a hypercall, makes it STABLE too.
"""
from __future__ import annotations

from typing import Final

from hypervisor.abi import Error, PageState
from hypervisor.addresses import PAGE_SHIFT, Gfn, Hva
from hypervisor.arch_x86.intrinsics import fill_memory, load_u8, store_u8
from hypervisor.lang import i64, u8, u64
from hypervisor.model import Vm

RELEASED: Final = 0x80  # the page has no frame because of a release or a reclaim
STATE_MASK: Final = 0x03
STATE_CHUNK: Final = 4096  # pages that one call changes at most
FORGET_A_STEP: Final[u64] = 1 << 17  # pages whose bytes are cleared at once, 8 with each store


def get(vm: Vm, gfn: Gfn) -> u8:
    """The byte of a guest frame inside the VM's memory: PageState, and RELEASED."""
    return load_u8(Hva(vm.page_state_hva + gfn))


def put(vm: Vm, gfn: Gfn, value: u8) -> None:
    """Set the byte of a guest frame inside the VM's memory, and the VM's counts."""
    old = get(vm, gfn)
    if old == value:
        return
    _count(vm, old, False)
    _count(vm, value, True)
    store_u8(Hva(vm.page_state_hva + gfn), value)


def _count(vm: Vm, value: u8, add: bool) -> None:
    """Keep vm.unused_pages and vm.volatile_pages: pages that reclaim may take (so not RELEASED ones)."""
    if value == PageState.UNUSED:
        vm.unused_pages = vm.unused_pages + 1 if add else vm.unused_pages - 1
    elif value == PageState.VOLATILE:
        vm.volatile_pages = vm.volatile_pages + 1 if add else vm.volatile_pages - 1


def forget_some(vm: Vm) -> bool:
    """The VM starts again, and has said nothing yet: a bounded part of that. True: nothing is left to forget."""
    pages: u64 = vm.memory_bytes >> PAGE_SHIFT
    part: u64 = min(pages - vm.forgotten_pages, FORGET_A_STEP)
    fill_memory(Hva(vm.page_state_hva + vm.forgotten_pages), 0, part)
    vm.forgotten_pages += part
    if vm.forgotten_pages != pages:
        return False
    vm.forgotten_pages = 0
    vm.unused_pages = 0
    vm.volatile_pages = 0
    vm.pressure_frames = 0
    return True


def refused(vm: Vm, first: u64, count: u64) -> bool:
    """Whether a range of guest frames as a guest named it is not inside the VM's memory."""
    pages: u64 = vm.memory_bytes >> PAGE_SHIFT
    return first > pages or count > pages - first


def set_state(vm: Vm, first: u64, count: u64, state: u64) -> i64:
    """Hypercall PAGE_STATE: arguments raw from a guest. Pages changed (at most STATE_CHUNK), or minus an abi.Error."""
    if state > PageState.COLD:
        return -i64(Error.BAD_ARGUMENT)
    if refused(vm, first, count):
        return -i64(Error.BAD_ADDRESS)
    most: u64 = count if count < STATE_CHUNK else STATE_CHUNK
    for gfn in range(first, first + most):
        released: u64 = get(vm, Gfn(gfn)) & RELEASED
        put(vm, Gfn(gfn), u8(released | state))
    return i64(most)
