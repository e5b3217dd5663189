"""Ranges that VMs ask for: none that is written, by a VM or by its overlay, is another's."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor import disk_config
from hypervisor.abi import DISK_OVERLAY_KEPT, DISK_OVERLAY_STORED, DISK_READ_ONLY, DiskConfig
from hypervisor.block.model import HostDisk, VirtualDisk, disks
from hypervisor.lang import clear

MIB = 1 << 20
STORED = DISK_OVERLAY_STORED | DISK_OVERLAY_KEPT


@pytest.fixture
def host() -> Iterator[HostDisk]:
    """64 MiB; MiB 8 to 15 are a VM's, which keeps its overlay in 16 to 23; partition 2 is 40 to 47."""
    clear(disks)
    found = disks.host[0]
    found.sectors = 64 * MIB >> 9
    found.partitions[1].first, found.partitions[1].sectors = 40 * MIB >> 9, 8 * MIB >> 9
    other = VirtualDisk()
    other.host = found
    other.first, other.sectors, other.overlay.most_frames = 8 * MIB >> 9, 8 * MIB >> 9, 100
    other.overlay.store.first, other.overlay.store.sectors = 16 * MIB >> 9, 8 * MIB >> 9
    disks.virtual[0] = other
    yield found
    clear(disks)


def problem(host: HostDisk, flags: int, first: int, size: int, *, overlay: int = 0, at: int = 0, partition: int = 0, overlay_partition: int = 0) -> str:
    """In MiB."""
    config: DiskConfig = disk_config.config
    clear(config)
    config.flags, config.first, config.sectors, config.partition = flags, first * MIB >> 9, size * MIB >> 9, partition
    config.overlay_bytes, config.overlay_first, config.overlay_partition = overlay * MIB, at * MIB >> 9, overlay_partition
    return disk_config.first_problem(host)


OVERLAPS = "one of its disks overlaps another that is written"


@pytest.mark.parametrize(("wanted", "expected"), [
    ({"flags": 0, "first": 0, "size": 8}, ""),
    ({"flags": 0, "first": 0, "size": 9}, OVERLAPS),
    ({"flags": DISK_READ_ONLY, "first": 8, "size": 8}, ""),
    ({"flags": 0, "first": 8, "size": 8, "overlay": 1}, ""),
    ({"flags": DISK_READ_ONLY, "first": 15, "size": 2}, OVERLAPS),
    ({"flags": STORED, "first": 8, "size": 8, "overlay": 8, "at": 24}, ""),
    ({"flags": STORED, "first": 8, "size": 8, "overlay": 9, "at": 15}, "the overlay of one of its disks cannot be written, or overlaps what it is for"),
    ({"flags": STORED, "first": 0, "size": 8, "overlay": 8, "at": 15}, OVERLAPS),
    ({"flags": STORED, "first": 0, "size": 8, "overlay": 8, "at": 23}, OVERLAPS),
    ({"flags": STORED, "first": 0, "size": 8, "overlay_partition": 2}, ""),
    ({"flags": STORED, "first": 0, "size": 8, "overlay_partition": 1}, "one of its disks is a partition that is not there"),
    ({"flags": STORED, "first": 0, "size": 0, "partition": 2, "overlay_partition": 2},
     "the overlay of one of its disks cannot be written, or overlaps what it is for"),
    ({"flags": STORED, "first": 0, "size": 8, "overlay": 8, "at": 57}, "one of its disks reaches beyond the host's disk"),
    ({"flags": 8, "first": 0, "size": 8}, "one of its disks has flags that are not known")])  # fmt: skip
def test_ranges(host: HostDisk, wanted: dict[str, int], expected: str) -> None:
    assert problem(host, wanted.pop("flags"), wanted.pop("first"), wanted.pop("size"), **wanted) == expected


def test_an_overlay_cannot_be_kept_on_a_disk_that_is_only_read(host: HostDisk) -> None:
    host.read_only = True
    assert problem(host, STORED, 0, 8, overlay=8, at=24) != "" and problem(host, 0, 0, 8, overlay=8) == ""
