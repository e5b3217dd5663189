"""The seam between block layer and drivers: what can be asked of a host disk, whatever its kind."""
from hypervisor.block.model import DriverKind, HostDisk, Transfer
from hypervisor.drivers import ram_disk
from hypervisor.status import Status


def start(host: HostDisk, transfer: Transfer) -> None:
    """Begin a transfer that keeps to the disk's limits; there is room, fewer than host.depth are in flight."""
    match host.kind:
        case DriverKind.RAM:
            ram_disk.start(host, transfer)
        case _:
            assert False


def notify(host: HostDisk) -> None:
    """All transfers of this turn have been started."""


def reap(host: HostDisk) -> Transfer | None:
    """A transfer that has ended, with its outcome; None: no more at the moment."""
    match host.kind:
        case DriverKind.RAM:
            return ram_disk.reap(host)
        case _:
            return None


def reset(host: HostDisk, begin: bool) -> Status:
    """Bring the disk back after a transfer did not end; afterwards it touches no memory and knows of no transfer.

    OK: done. WAIT: call again, with begin False. Anything else: it is lost, and cut off from memory.
    """
    return Status.OK


def cut_off(host: HostDisk) -> None:
    """The disk is given up: see that it touches no memory any more."""
