"""Whom a completed request is for. Called by scheduler.py from the run loop."""
from hypervisor.block import disk_test, virtual_disk
from hypervisor.block.model import Completion, Request, VirtualDisk
from hypervisor.build_options import DEBUG
from hypervisor.virtio import service


def done(request: Request) -> None:
    """Tell who submitted it (request.completion): request.outcome says how it ended; its memory is not pinned any more. The
    request is free again when this returns. New requests may be taken and submitted from here."""
    disk = request.disk
    assert disk is not None
    whom = request.completion
    cookie = request.cookie
    outcome = request.outcome
    match whom:
        case Completion.DISK_TEST:
            if DEBUG:
                disk_test.done(request)
        case Completion.KEPT:
            return
        case _:
            pass
    virtual_disk.give_back(request)
    if whom == Completion.VIRTIO_BLK:
        service.completed(disk, cookie, outcome)


def room(disk: VirtualDisk) -> None:
    """A request of the disk may be taken or submitted again, after one could not."""
    disk.starved = False
    service.room(disk)
