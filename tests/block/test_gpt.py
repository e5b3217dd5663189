"""Partition tables: what is on the disk is found; what is damaged is not believed."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hypervisor.addresses import Hpa
from hypervisor.block import gpt, host_disk
from hypervisor.block.model import HostDisk, TableState, disks
from hypervisor.drivers import ram_disk
from hypervisor.memory import frames
from tests.block.gpt_image import SECTOR, image
from tests.block.worlds import Interpreted

SECTORS = 200
PARTITIONS = {1: (40, 20), 3: (60, 100), 128: (34, 1)}


@pytest.fixture
def world() -> Iterator[Interpreted]:
    made = Interpreted()
    yield made
    made.close()


def disk_of(world: Interpreted, data: bytes | bytearray) -> HostDisk:
    """A disk in memory that holds `data`, its table read."""
    base = frames.alloc_contiguous(-(-len(data) // 4096))
    world.write(base, bytes(data))
    host = host_disk.add()
    assert host is not None
    ram_disk.init(host, Hpa(base), len(data) // SECTOR)
    gpt.read_table(host)
    disks.host_count = 0
    assert host.in_flight == 0 and host.busy == 0
    return host


def found(host: HostDisk) -> dict[int, tuple[int, int]]:
    return {i + 1: (part.first, part.sectors) for i, part in enumerate(host.partitions) if part.sectors}


def test_partitions_are_found(world: Interpreted) -> None:
    host = disk_of(world, image(SECTORS, PARTITIONS))
    assert host.table == TableState.GOOD
    assert found(host) == {1: (40, 20), 3: (60, 100)}  # of 128 entries those that can be named


def test_the_copy_stands_in(world: Interpreted) -> None:
    data = image(SECTORS, PARTITIONS)
    data[SECTOR + 60] ^= 1
    host = disk_of(world, data)
    assert host.table == TableState.COPY and found(host) == {1: (40, 20), 3: (60, 100)}


def test_no_table(world: Interpreted) -> None:
    assert disk_of(world, bytes(SECTORS * SECTOR)).table == TableState.NONE


def test_partitions_outside_the_usable_sectors_are_not_there(world: Interpreted) -> None:
    host = disk_of(world, image(SECTORS, {1: (33, 2), 2: (166, 2), 3: (100, 0), 4: (1 << 63, 5), 5: (166, 1)}))
    assert host.table == TableState.GOOD and found(host) == {5: (166, 1)}


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@example(flips=[(SECTOR, 1), (SECTOR, 1), ((SECTORS - 1) * SECTOR, 1)])  # two that undo each other
@given(flips=st.lists(st.tuples(st.one_of(st.integers(SECTOR, SECTOR + 91), st.integers((SECTORS - 1) * SECTOR, (SECTORS - 1) * SECTOR + 91),
                                          st.integers(2 * SECTOR, 34 * SECTOR - 1)), st.integers(1, 255)), min_size=1, max_size=3))  # fmt: skip
def test_damage_is_noticed(flips: list[tuple[int, int]]) -> None:
    """Whatever bytes of headers and entries change: the table is found whole, or not at all."""
    world = Interpreted()
    data = image(SECTORS, PARTITIONS)
    for place, bits in flips:
        data[place] ^= bits
    try:
        host = disk_of(world, data)
        copy = (SECTORS - 1) * SECTOR
        whole = data[:copy] == image(SECTORS, PARTITIONS)[:copy]
        assert found(host) == ({} if host.table == TableState.NONE else {1: (40, 20), 3: (60, 100)})
        assert (host.table == TableState.GOOD) == whole
    finally:
        world.close()
