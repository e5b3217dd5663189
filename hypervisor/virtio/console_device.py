"""Virtio console (virtio 1.1, 5.3): one port, beside the UART. What is typed comes here while a driver listens (liveness.console).

| a driver offers | what happens |
|---|---|
| queue 0, segments to be written alone | what was typed comes into the first page of the chain, RECEIVE_MOST bytes at most; until something is, the chain stays offered |
| queue 1, segments to be read alone | shown as the UART's bytes are, CHUNK at a time, then the chain comes back; while the host takes no more the vCPU waits, two seconds at most |
| queue 0, something to be read; queue 1, something to be written | the ring is broken |

No features of its own: one port, the size of the terminal is not known, and there is no emergency write. The table of transport.py has
the registers.
"""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor import guest_console
from hypervisor.addresses import Hva
from hypervisor.arch_x86 import serial
from hypervisor.channel import consoles
from hypervisor.lang import address, struct, u8, u32, u64
from hypervisor.memory import guest_memory, guest_window
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status
from hypervisor.virtio import cursor, ring
from hypervisor.virtio.cursor import Cursor
from hypervisor.virtio.ring import Chain
from hypervisor.virtio.state import CONSOLE_RECEIVE, Device

CHUNK: Final = 128  # bytes shown in one piece, below 50 k instructions: each may be shown as four
RECEIVE_MOST: Final[u64] = 256


@struct
class Work:
    """The chain that is being looked at, and bytes on their way."""

    at: Cursor
    bytes: Annotated[list[u8], CHUNK]


work: Final = Work()


def handle(vm: Vm, vcpu: Vcpu | None, device: Device, index: u32, chain: Chain) -> Status:
    """One chain. BUSY: nothing was typed; WAIT: not all of it was shown, or the host takes no more; NO_MEMORY: one that can wait will
    do it; BAD_ARGUMENT: the driver may not offer this."""
    if index == CONSOLE_RECEIVE:
        return receive(vm, vcpu, device, chain)
    return transmit(vm, vcpu, device, chain)


def receive(vm: Vm, vcpu: Vcpu | None, device: Device, chain: Chain) -> Status:
    """Give the driver what was typed."""
    if chain.readable != 0:
        return Status.BAD_ARGUMENT
    if not guest_console.has_input(vm):
        return Status.BUSY
    cursor.begin(work.at, chain, 0, 0, min(chain.write_bytes, RECEIVE_MOST))
    cursor.step(work.at, chain)
    status = cursor.back_page(vm, vcpu, work.at.gpa)
    if status != Status.OK:
        return status
    target = guest_memory.host_address(vm, work.at.gpa)
    written: u32 = 0
    while written < work.at.length and guest_console.has_input(vm):
        guest_window.store_u8(target + written, guest_console.take_input(vm))
        written += 1
    give_back(device, CONSOLE_RECEIVE, chain.head, written)
    return Status.OK


def transmit(vm: Vm, vcpu: Vcpu | None, device: Device, chain: Chain) -> Status:
    """Show a piece of a chain. Its driver may change it between two pieces, and is shown what it has then."""
    if chain.write_bytes != 0:
        return Status.BAD_ARGUMENT
    if vcpu is None:
        return Status.NO_MEMORY
    if guest_console.is_attached(vm) and serial.is_crowded():
        return Status.WAIT  # at the guest's own expense, as with a UART that sends
    if consoles.room(vm) == 0 and consoles.wait(vcpu, vm):
        return Status.WAIT
    consoles.stop_waiting(vcpu)
    r = device.registers
    left: u64 = chain.read_bytes - min(u64(r.shown), chain.read_bytes)
    part: u64 = min(min(left, CHUNK), max(consoles.room(vm), 1))
    cursor.begin(work.at, chain, 0, r.shown, part)
    cursor.read(vm, work.at, chain, Hva(address(work.bytes)))
    for n in range(part):
        guest_console.put(vm, work.bytes[n])
    if part < left:
        r.shown += part
        return Status.WAIT
    r.shown = 0
    give_back(device, 1, chain.head, 0)
    return Status.OK


def give_back(device: Device, index: u32, head: u32, written: u32) -> None:
    """The chain is done with."""
    queue = device.registers.queues[index]
    ring.advance(queue)
    ring.give_back(queue, device.places[index], head, written)
    device.requests += 1
