"""All device state of a VM that does not run, as records of saved_state.py, one behind the other in the order of `visit`.

Host addresses are not in it: whoever restores it into another VM attaches rings and arms timers anew.
"""
from __future__ import annotations

from enum import IntEnum
from typing import Final

from hypervisor import saved_state
from hypervisor.addresses import Hva
from hypervisor.lang import address, struct, u64
from hypervisor.model import Vm
from hypervisor.saved_layouts import Piece
from hypervisor.status import Status


class Deed(IntEnum):
    """What `visit` does with each piece."""

    COUNT = 0
    SAVE = 1
    CHECK = 2
    LOAD = 3
    FORGET = 4


@struct
class Walk:
    """Where visit is."""

    deed: Deed
    at: u64  # address of the next record
    left: u64  # bytes from there to the end
    status: Status


walk: Final = Walk()


def size_of(vm: Vm) -> u64:
    """Bytes of all records."""
    walk.left = 1 << 32
    visit(vm, Deed.COUNT)
    return (1 << 32) - walk.left


def save(vm: Vm, target: Hva, room: u64) -> Status:
    """Write all records. NO_MEMORY: there is no room, and nothing is written."""
    if room < size_of(vm):
        return Status.NO_MEMORY
    begin(target, room)
    visit(vm, Deed.SAVE)
    return Status.OK


def load(vm: Vm, source: Hva, length: u64) -> Status:
    """Restore all records of a VM that was like this one. BAD_ARGUMENT: one is damaged, or of another VM or build; nothing has changed."""
    begin(source, length)
    visit(vm, Deed.CHECK)
    if walk.status != Status.OK or walk.left != 0:
        return Status.BAD_ARGUMENT
    begin(source, length)
    visit(vm, Deed.LOAD)
    return Status.OK


def forget(vm: Vm) -> None:
    """Overwrite all that load restores."""
    begin(Hva(0), 1 << 32)
    visit(vm, Deed.FORGET)


def begin(place: Hva, length: u64) -> None:
    """Before visit."""
    walk.at = place
    walk.left = length
    walk.status = Status.OK


def visit(vm: Vm, deed: Deed) -> None:
    """Each piece of the VM in turn."""
    walk.deed = deed
    p = vm.platform
    if p is not None:
        one(Piece.BOARD, address(p))
        one(Piece.PIC, address(p.pic))
        one(Piece.PIT, address(p.pit))
        one(Piece.UART, address(p.uart))
        one(Piece.RTC, address(p.rtc))
        one(Piece.KEYBOARD, address(p.keyboard))
        one(Piece.ACPI, address(p.pm))
        one(Piece.DEBUG_PORTS, address(p.debug))
        one(Piece.IOAPIC, address(p.ioapic))
        one(Piece.HPET, address(p.hpet))
    devices = vm.devices
    if devices is not None:
        one(Piece.PCI, address(devices.host))
        for device in devices.devices:
            if device is not None:
                one(Piece.VIRTIO, address(device.registers))
    for vcpu in vm.vcpus:
        if vcpu is not None:
            one(Piece.LAPIC, address(vcpu.lapic))
            one(Piece.KEPT, address(vcpu.kept))


def one(piece: Piece, place: u64) -> None:
    """One piece, whose state is at `place`."""
    length = saved_state.bytes_of(piece)
    match walk.deed:
        case Deed.SAVE:
            saved_state.save(piece, Hva(place), Hva(walk.at))
        case Deed.CHECK:
            if walk.status == Status.OK:
                walk.status = saved_state.check(piece, Hva(walk.at), walk.left)
        case Deed.LOAD:
            saved_state.load(piece, Hva(walk.at), Hva(place))
        case Deed.FORGET:
            saved_state.forget(piece, Hva(place))
        case _:
            pass
    if walk.left >= length:
        walk.left -= length
        walk.at += length
    elif walk.deed == Deed.CHECK:
        walk.status = Status.BAD_ARGUMENT
