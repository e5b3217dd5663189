"""Whom a completed request is for. Called by scheduler.py from the run loop."""
from hypervisor.block import virtual_disk
from hypervisor.block.model import Request, VirtualDisk


def done(request: Request) -> None:
    """Tell who submitted it (request.completion): request.outcome says how it ended; its memory is not pinned any more. The
    request is free again when this returns. New requests may be taken and submitted from here."""
    virtual_disk.give_back(request)


def room(disk: VirtualDisk) -> None:
    """A request of the disk may be taken or submitted again, after one could not."""
    disk.starved = False
