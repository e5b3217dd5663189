"""The machine's disks: found by drivers at boot, and their transfers."""
from typing import Final

from hypervisor import text
from hypervisor.addresses import PAGE_SIZE, Hva, hpa_of, hva_of
from hypervisor.arch_x86.intrinsics import bsf
from hypervisor.block.model import MAX_HOST_DISKS, TRANSFERS_A_DISK, HostDisk, Transfer, disks
from hypervisor.lang import address, at, char_at, clear, sizeof, text_at, u32, u64, wrap_u64
from hypervisor.memory import frames

TRANSFER_PAGES: Final = (TRANSFERS_A_DISK * sizeof(Transfer) + PAGE_SIZE - 1) // PAGE_SIZE


def name(host: HostDisk) -> str:
    """By its place in the machine: ata0, nvme0, virtio0."""
    return text_at(address(host.name))


def add() -> HostDisk | None:
    """A host disk that a driver fills, none of its transfers in use; None: too many, or no memory. Boot only."""
    if disks.host_count == MAX_HOST_DISKS:
        return None
    page = frames.alloc_contiguous_zeroed(TRANSFER_PAGES)
    if page == 0:
        return None
    host = disks.host[disks.host_count]
    clear(host)
    host.id = disks.host_count
    host.transfers = hva_of(page)
    for i in range(TRANSFERS_A_DISK):
        transfer_of(host, i).slot = u32(i)
    disks.host_count += 1
    return host


def drop_last() -> None:
    """The disk that `add` gave last is none after all."""
    disks.host_count -= 1
    host = disks.host[disks.host_count]
    frames.free_contiguous(hpa_of(host.transfers), TRANSFER_PAGES)


def set_name(host: HostDisk, prefix: str, number: u64) -> None:
    """Name it, as `ata1`; a number below 10."""
    i: u32 = 0
    while char_at(prefix, i) != 0:
        host.name[i] = char_at(prefix, i)
        i += 1
    host.name[i] = 48 + number % 10


def find(wanted: str) -> HostDisk | None:
    """The disk of that name, or else that serial number, or else that model; None if there is none."""
    for i in range(disks.host_count):
        if text.same(name(disks.host[i]), wanted):
            return disks.host[i]
    for i in range(disks.host_count):
        if text.same(text_at(address(disks.host[i].serial)), wanted):
            return disks.host[i]
    for i in range(disks.host_count):
        if text.same(text_at(address(disks.host[i].model)), wanted):
            return disks.host[i]
    return None


def transfer_of(host: HostDisk, slot: u64) -> Transfer:
    """The transfer of a slot, 0 .. TRANSFERS_A_DISK - 1."""
    assert slot < TRANSFERS_A_DISK
    return at(Transfer, Hva(host.transfers + slot * sizeof(Transfer)))


def take_transfer(host: HostDisk) -> Transfer:
    """One that is not in flight; fewer than host.depth are."""
    assert host.in_flight < host.depth and host.depth <= TRANSFERS_A_DISK
    slot = bsf(wrap_u64(~host.busy))
    host.busy |= 1 << (slot & 63)
    host.in_flight += 1
    transfer = transfer_of(host, slot)
    transfer.sector = 0
    transfer.sectors = 0
    transfer.segment_count = 0
    transfer.request_count = 0
    transfer.tries = 0
    transfer.own = False
    return transfer


def release_transfer(host: HostDisk, transfer: Transfer) -> None:
    """It has ended."""
    host.busy = host.busy & ~(1 << (transfer.slot & 63))
    host.in_flight -= 1
