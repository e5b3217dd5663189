"""Going through the bytes of a checked chain, piece by piece, each within one guest page."""
from __future__ import annotations

from hypervisor.addresses import PAGE_SHIFT, Gfn, Gpa, Hva
from hypervisor.lang import struct, u32, u64
from hypervisor.memory import backing, guest_memory
from hypervisor.model import Vcpu, Vm
from hypervisor.paging import page_state
from hypervisor.status import Status
from hypervisor.virtio.ring import Chain


@struct
class Cursor:
    """A place in a chain, and the piece that `step` found before it."""

    segment: u32
    offset: u64
    left: u64  # bytes until the end of what is gone through
    gpa: Gpa
    length: u64


def begin(c: Cursor, chain: Chain, segment: u32, skip: u64, length: u64) -> None:
    """Start `skip` bytes behind the beginning of a segment; the chain has `length` bytes from there on."""
    c.segment = segment
    c.offset = skip
    c.left = length
    while c.left != 0 and c.offset >= chain.segments[c.segment].length:
        c.offset -= chain.segments[c.segment].length
        c.segment += 1


def step(c: Cursor, chain: Chain) -> bool:
    """Find the next piece; False: there is none."""
    if c.left == 0:
        return False
    segment = chain.segments[c.segment]
    c.gpa = Gpa(segment.gpa + c.offset)
    c.length = guest_memory.piece(c.gpa, min(segment.length - c.offset, c.left))
    c.left -= c.length
    c.offset += c.length
    if c.offset == segment.length:
        c.offset = 0
        c.segment += 1
    return True


def read(vm: Vm, c: Cursor, chain: Chain, target: Hva) -> None:
    """Copy all that is left to the hypervisor, each byte fetched once."""
    done: u64 = 0
    while step(c, chain):
        status = guest_memory.read(vm, Hva(target + done), c.gpa, c.length)
        assert status == Status.OK, "segments lie in RAM"
        done += c.length


def back_page(vm: Vm, vcpu: Vcpu | None, gpa: Gpa) -> Status:
    """See that a page has a frame. WAIT; NO_MEMORY: the vCPU has waited in vain; or there is no vCPU, and no frame yet."""
    if vcpu is not None:
        gfn = Gfn(gpa >> PAGE_SHIFT)
        status = backing.back_for(vcpu, vm, gfn)
        if status == Status.OK and page_state.get(vm, gfn) != 0:
            page_state.put(vm, gfn, 0)  # in use: backing the next page of the request must not take this one
        return status
    return Status.OK if guest_memory.host_address(vm, gpa) != 0 else Status.NO_MEMORY
