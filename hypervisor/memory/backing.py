"""Giving guest memory its frames, on demand and zeroed."""
from __future__ import annotations

from typing import Final

from hypervisor.addresses import PAGE_SHIFT, Gfn, Hfn, Hva
from hypervisor.arch_x86.intrinsics import load_u64
from hypervisor.lang import u64
from hypervisor.memory import frames, nested
from hypervisor.memory.nested import MAP_EXECUTE, MAP_WRITE
from hypervisor.memory.nested_walk import present
from hypervisor.model import Vcpu, Vm
from hypervisor.paging import page_state, pressure
from hypervisor.status import Status

CLUSTER: Final = 32  # pages, aligned, so of one table; zeroing one takes 512 instructions, the rest below 300


def back(vm: Vm, gfn: Gfn) -> Status:
    """See that a guest frame is backed. OK; BAD_ADDRESS: not RAM of this VM; NO_MEMORY: the pool has none for it now."""
    if gfn >= vm.memory_bytes >> PAGE_SHIFT:
        return Status.BAD_ADDRESS
    slot = nested.slot_of(vm, gfn)
    if slot == 0:
        return Status.NO_MEMORY
    if present(load_u64(slot)):
        return Status.OK
    if not pressure.may_take(vm):
        return Status.NO_MEMORY
    hpa = frames.alloc_private(vm, gfn)
    if hpa == 0:
        return Status.NO_MEMORY
    nested.fill_slot(slot, vm, gfn, Hfn(hpa >> PAGE_SHIFT), MAP_WRITE | MAP_EXECUTE)
    if page_state.get(vm, gfn) != 0:
        page_state.put(vm, gfn, 0)
    return Status.OK


def back_for(vcpu: Vcpu, vm: Vm, gfn: Gfn) -> Status:
    """As back, for a vCPU that can sleep: WAIT: its handler must return Outcome.WAIT; NO_MEMORY: it has waited in vain."""
    status = back(vm, gfn)
    if status == Status.NO_MEMORY:
        return pressure.wait(vcpu)
    if vcpu.frame_wait_until != 0:
        pressure.stop_waiting(vcpu)
    return status


def back_around(vm: Vm, gfn: Gfn) -> None:
    """After a touch of `gfn` by a stock guest: back its neighbours too, as long as memory is plentiful.

    Such a guest uses nearly all of its memory, in order, and never gives any back. Below 30 k instructions.
    """
    if frames.available() <= pressure.high_watermark() + CLUSTER:
        return
    first: u64 = gfn & ~u64(CLUSTER - 1)
    end: u64 = frames.min_u64(first + CLUSTER, vm.memory_bytes >> PAGE_SHIFT)
    slot = nested.slot_of(vm, Gfn(first))
    for near in range(first, end):
        if not present(load_u64(slot)) and page_state.get(vm, Gfn(near)) == 0:
            hpa = frames.alloc_private(vm, Gfn(near))
            if hpa == 0:
                return
            nested.fill_slot(slot, vm, Gfn(near), Hfn(hpa >> PAGE_SHIFT), MAP_WRITE | MAP_EXECUTE)
        slot = Hva(slot + nested.ENTRY_BYTES)
