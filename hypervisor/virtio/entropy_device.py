"""Virtio entropy device (virtio 1.1, 5.4): fills what the driver offers with random bytes, a bounded piece of each buffer.

| a driver offers | what happens |
|---|---|
| segments to be written alone | the first PIECE bytes of the first segment are random; the chain comes back with that length |
| something to be read | the ring is broken |

The table of transport.py has the registers.
"""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor import entropy
from hypervisor.addresses import Hva
from hypervisor.lang import address, clear, struct, u32, u64
from hypervisor.memory import guest_memory
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status
from hypervisor.virtio import ring
from hypervisor.virtio.ring import Chain
from hypervisor.virtio.state import Device

PIECE: Final = 64  # bytes at most that one buffer gets: a driver asks again for more


@struct
class Answer:
    """Bytes on their way."""

    words: Annotated[list[u64], 8]


answer: Final = Answer()


def handle(vm: Vm, vcpu: Vcpu | None, device: Device, index: u32, chain: Chain) -> Status:
    """Answer one chain. WAIT, NO_MEMORY: not taken yet; BAD_ARGUMENT: the driver may not offer this."""
    if chain.readable != 0:
        return Status.BAD_ARGUMENT
    first = chain.segments[0]
    length: u32 = min(first.length, PIECE)
    if vcpu is None:
        return Status.NO_MEMORY  # one that can wait will do it
    status = guest_memory.pin(vcpu, first.gpa, length, True)
    if status != Status.OK:
        return status
    entropy.fill(Hva(address(answer)), length)
    status = guest_memory.copy_out(vcpu, first.gpa, Hva(address(answer)), length)
    clear(answer)
    assert status == Status.OK, "it was pinned"
    queue = device.registers.queues[index]
    ring.advance(queue)
    ring.give_back(queue, device.places[index], chain.head, length)
    return Status.OK
