"""The seam between block layer and drivers: what can be asked of a host disk, whatever its kind."""
from __future__ import annotations

from hypervisor.block.model import DriverKind, HostDisk, Transfer
from hypervisor.drivers import ata, nvme, ram_disk, virtio_blk
from hypervisor.status import Status


def is_free(host: HostDisk) -> bool:
    """Can it take a transfer, if there is room? False: another disk's is in the way."""
    return host.kind != DriverKind.ATA or ata.is_free(host)


def start(host: HostDisk, transfer: Transfer) -> None:
    """Begin a transfer that keeps to the disk's limits; there is room, fewer than host.depth were in flight."""
    match host.kind:
        case DriverKind.RAM:
            ram_disk.start(host, transfer)
        case DriverKind.VIRTIO_BLK:
            virtio_blk.start(host, transfer)
        case DriverKind.ATA:
            ata.start(host, transfer)
        case DriverKind.NVME:
            nvme.start(host, transfer)
        case _:
            assert False


def notify(host: HostDisk) -> None:
    """All transfers of this turn have been started."""
    if host.kind == DriverKind.VIRTIO_BLK:
        virtio_blk.notify(host)
    elif host.kind == DriverKind.NVME:
        nvme.notify(host)


def reap(host: HostDisk) -> Transfer | None:
    """A transfer that has ended, with its outcome; None: no more at the moment."""
    match host.kind:
        case DriverKind.RAM:
            return ram_disk.reap(host)
        case DriverKind.VIRTIO_BLK:
            return virtio_blk.reap(host)
        case DriverKind.ATA:
            return ata.reap(host)
        case DriverKind.NVME:
            return nvme.reap(host)
        case _:
            return None


def let_interrupt(host: HostDisk, on: bool) -> None:
    """Whether ends of transfers interrupt. Interrupts that come although they are off do no harm."""
    if host.kind == DriverKind.VIRTIO_BLK:
        virtio_blk.let_interrupt(host, on)
    elif host.kind == DriverKind.NVME:
        nvme.let_interrupt(host, on)


def acknowledge(host: HostDisk) -> None:
    """A disk has interrupted, perhaps this one: let its interrupt line go."""
    if host.kind == DriverKind.VIRTIO_BLK:
        virtio_blk.acknowledge(host)
    elif host.kind == DriverKind.ATA:
        ata.acknowledge(host)


def reset(host: HostDisk, begin: bool) -> Status:
    """Bring the disk back after a transfer did not end; afterwards it touches no memory and knows of no transfer.

    OK: done. WAIT: call again, with begin False. Anything else: it is lost (cut_off follows).
    """
    match host.kind:
        case DriverKind.VIRTIO_BLK:
            return virtio_blk.reset(host, begin)
        case DriverKind.ATA:
            return ata.reset(host, begin)
        case DriverKind.NVME:
            return nvme.reset(host, begin)
        case _:
            return Status.OK


def cut_off(host: HostDisk) -> None:
    """The disk is given up: see that it touches no memory any more."""
    if host.kind == DriverKind.VIRTIO_BLK:
        virtio_blk.cut_off(host)
    elif host.kind == DriverKind.ATA:
        ata.cut_off(host)
    elif host.kind == DriverKind.NVME:
        nvme.cut_off(host)
