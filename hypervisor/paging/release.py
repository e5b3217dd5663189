"""Hypercalls by which a guest gives frames back and takes them again. All arguments come raw from a guest.

A released page loses its contents. Touching it again is allowed: it gets a zeroed frame like any page touched first, as long
as the pool has one for this VM (pressure.py); MEM_POPULATE does the same ahead of time for a range.
"""
from __future__ import annotations

from typing import Final

from hypervisor.abi import Error
from hypervisor.addresses import Gfn
from hypervisor.lang import i64, u64
from hypervisor.memory import backing, frames, ledger, nested
from hypervisor.model import Vcpu, Vm
from hypervisor.paging import page_state, pressure
from hypervisor.status import Status

RELEASE_CHUNK: Final = 64  # pages that one call does at most, so that it stays below 50 k instructions
POPULATE_CHUNK: Final = 48
PRESSED_CHUNK: Final = 1  # while memory is short each page may cost a scan of page states (reclaim.py)
MUST_WAIT: Final[i64] = -4096  # not an ABI value: the handler returns Outcome.WAIT


def mem_release(vm: Vm, first: u64, count: u64) -> i64:
    """Hypercall MEM_RELEASE: pages of the range that are released now (at most RELEASE_CHUNK, the guest calls again),
    those without a frame included; or minus an abi.Error."""
    if page_state.refused(vm, first, count):
        return -i64(Error.BAD_ADDRESS)
    most: u64 = count if count < RELEASE_CHUNK else RELEASE_CHUNK
    freed: u64 = 0
    for gfn in range(first, first + most):
        if nested.unmap(vm, Gfn(gfn)) != 0:
            freed += 1
        page_state.put(vm, Gfn(gfn), page_state.RELEASED)
    if freed != 0:
        vm.released_frames += freed
        ledger.settle(RELEASE_CHUNK)
        pressure.given(vm, freed)
    return i64(most)


def mem_populate(vcpu: Vcpu, first: u64, count: u64) -> i64:
    """Hypercall MEM_POPULATE: pages from the start of the range that have a frame now (at most POPULATE_CHUNK, fewer under
    pressure), or minus an abi.Error; MUST_WAIT if not even the first can have one yet."""
    vm = vcpu.vm
    assert vm is not None
    if page_state.refused(vm, first, count):
        return -i64(Error.BAD_ADDRESS)
    chunk: u64 = POPULATE_CHUNK if frames.available() > pressure.low_watermark() + POPULATE_CHUNK else PRESSED_CHUNK
    most: u64 = count if count < chunk else chunk
    done: u64 = 0
    while done < most and backing.back(vm, Gfn(first + done)) == Status.OK:
        done += 1
    vm.populated_frames += done
    if done == 0 and most != 0:
        return MUST_WAIT if pressure.wait(vcpu) == Status.WAIT else -i64(Error.NO_MEMORY)
    pressure.stop_waiting(vcpu)
    return i64(done)
