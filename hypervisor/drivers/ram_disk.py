"""A disk in memory: a member of the bundle, or zeroed frames. What is written lasts until the machine is switched off.

A transfer is carried out when it starts and found to have ended at the next turn, as on any other disk.
"""
from typing import Annotated, Final

from hypervisor.addresses import Hpa, Hva, hva_of
from hypervisor.arch_x86.intrinsics import bsf, fill_memory
from hypervisor.block.host_disk import transfer_of
from hypervisor.block.model import (MAX_HOST_DISKS, MAX_REQUEST_SECTORS, MAX_SEGMENTS, SECTOR_SHIFT, TRANSFERS_A_DISK, Direction,
                                    DriverKind, HostDisk, Outcome, Transfer)
from hypervisor.lang import array, struct, u64
from hypervisor.memory import guest_window

@struct
class RamDisk:
    """Where it lies, and which transfers have ended (a bit each)."""

    base: Hpa
    ended: u64


units: Final[Annotated[list[RamDisk], MAX_HOST_DISKS]] = array(RamDisk, MAX_HOST_DISKS)


def init(host: HostDisk, base: Hpa, sectors: u64) -> None:
    """Make `host`, just added, a disk of the `sectors` sectors at `base`. Boot only."""
    host.kind = DriverKind.RAM
    host.unit = host.id
    host.sectors = sectors
    host.depth = TRANSFERS_A_DISK
    host.most_segments = MAX_SEGMENTS
    host.most_sectors = MAX_REQUEST_SECTORS
    host.can_discard = True
    host.immediate = True
    host.discard_most = MAX_REQUEST_SECTORS
    units[host.unit].base = base
    units[host.unit].ended = 0


def start(host: HostDisk, transfer: Transfer) -> None:
    """Copy; below 20 k instructions for 128 KiB."""
    unit = units[host.unit]
    place: u64 = hva_of(unit.base) + (transfer.sector << SECTOR_SHIFT)
    if transfer.direction == Direction.DISCARD:
        fill_memory(place, 0, transfer.sectors << SECTOR_SHIFT)
    for i in range(transfer.segment_count):
        segment = transfer.segments[i]
        if transfer.direction == Direction.READ:
            guest_window.copy(hva_of(segment.hpa), Hva(place), segment.bytes)
        else:
            guest_window.copy(Hva(place), hva_of(segment.hpa), segment.bytes)
        place += segment.bytes
    unit.ended |= 1 << (transfer.slot & 63)


def reap(host: HostDisk) -> Transfer | None:
    """The ended transfer of the lowest slot."""
    unit = units[host.unit]
    if unit.ended == 0:
        return None
    slot = bsf(unit.ended)
    unit.ended = unit.ended & ~(1 << (slot & 63))
    transfer = transfer_of(host, slot)
    transfer.outcome = Outcome.OK
    return transfer
