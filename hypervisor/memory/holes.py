"""Guest-physical addresses where a VM has nothing: reads give all ones, as on a PC's bus.

One frame of ones is mapped read-only into the VMs that look there; it is SHARED in the ledger and made when first needed.
"""
from __future__ import annotations

from typing import Final

from hypervisor.addresses import PAGE_SHIFT, PAGE_SIZE, Gfn, Hfn, Hpa, hva_of
from hypervisor.lang import struct
from hypervisor.memory import frames, guest_window, nested
from hypervisor.model import Vm
from hypervisor.status import Status


@struct
class Ones:
    """The frame of ones."""

    hpa: Hpa  # 0: not made yet


ones: Final = Ones()


def show_ones(vm: Vm, gfn: Gfn) -> Status:
    """Let reads of this page, which is not RAM, give ones. BUSY: they do already; NO_MEMORY: no frame, or over the VM's table quota."""
    if ones.hpa == 0:
        ones.hpa = frames.alloc_shared()
        if ones.hpa == 0:
            return Status.NO_MEMORY
        guest_window.fill(hva_of(ones.hpa), 0xFF, PAGE_SIZE)
    return nested.map(vm, gfn, Hfn(ones.hpa >> PAGE_SHIFT), 0)
