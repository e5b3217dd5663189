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
    requests_a_second: int = 0
    bytes_a_second: int = 0


def with_files(disks: tuple[HostDisk, ...], folder: Path) -> tuple[HostDisk, ...]:
    """The same, each that the emulator attaches with its image file: made sparse where there is none, in `folder` where the
    configuration names none."""
    made: list[HostDisk] = []
    for disk in disks:
        if disk.bus != "memory":
            image = disk.image or folder / f"{disk.name}.img"
            if disk.size and (disk.image is None or not image.is_file()):
                with image.open("wb") as file:
                    file.truncate(disk.size)
            disk = replace(disk, image=image)
        made.append(disk)
    return tuple(made)
