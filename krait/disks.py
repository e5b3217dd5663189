"""Disks: of the machine (`[[disk]]`) and of its VMs (`[[vm.disk]]`), and the bundle's member that tells the hypervisor of them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Bus = Literal["memory", "virtio", "ata", "nvme"]

SECTOR = 512
BUSES: tuple[Bus, ...] = ("memory", "virtio", "ata", "nvme")


@dataclass(frozen=True)
class HostDisk:
    """A disk of the machine, or of the hypervisor's memory. `image`: a raw file; `size` in bytes: zeros, or a file that is made
    so when there is none."""

    name: str
    bus: Bus
    image: Path | None = None
    size: int = 0
    requests_a_second: int = 0
    """QEMU lets it do no more (0: as it can): a disk that is the bottleneck, whatever the machine."""


@dataclass(frozen=True)
class VmDisk:
    """A disk of a VM: a partition, or `size` bytes (0: all) from `start` on, of the host disk `disk`."""

    name: str
    disk: str
    partition: int = 0
    start: int = 0
    size: int = 0
    read_only: bool = False
    overlay: int = 0
    """Bytes: of memory, or of the same host disk from `overlay_start` on if that is not None, or `overlay_partition` of it."""
    overlay_start: int | None = None
    overlay_partition: int = 0
    keep: bool = False
    """What an earlier run wrote to the overlay on disk is there again."""
    requests_a_second: int = 0
    bytes_a_second: int = 0


def named(disks: tuple[HostDisk, ...], folder: Path) -> tuple[HostDisk, ...]:
    """The same, each that the emulator attaches with its image file: in `folder` where the configuration names none."""
    return tuple(
        disk if disk.bus == "memory" or disk.image is not None else replace(disk, image=folder / f"{disk.name}.img") for disk in disks
    )


def made(disks: tuple[HostDisk, ...], folder: Path) -> tuple[HostDisk, ...]:
    """As named, and the files are there: sparse ones of zeros are made where there are none, and anew in `folder`."""
    complete = named(disks, folder)
    for given, disk in zip(disks, complete):
        if disk.bus != "memory" and disk.image is not None and (given.image is None or not disk.image.is_file()):
            with disk.image.open("wb") as file:
                file.truncate(disk.size)
    return complete
