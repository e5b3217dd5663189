"""From the bundle's `krait.disks` to disks of VMs. Nothing in it is trusted: what is wrong is refused by name."""
from __future__ import annotations

from typing import Final

from hypervisor import bundle
from hypervisor.abi import (ABI_VERSION, BUNDLE_DISKS_MEMBER, DISK_OVERLAY_KEPT, DISK_OVERLAY_STORED, DISK_READ_ONLY, DISKS_MAGIC,
                            DiskConfig, DisksHeader, RamDiskConfig)
from hypervisor.addresses import PAGE_MASK, PAGE_SHIFT, Hpa, Hva, hva_of
from hypervisor.block import host_disk, overlay, overlay_store, virtual_disk
from hypervisor.block.model import DISK_NAME_BYTES, MAX_PARTITIONS, SECTOR_SHIFT, HostDisk, disks
from hypervisor.bundle import Member
from hypervisor.console import say
from hypervisor.drivers import ram_disk
from hypervisor.lang import address, at, char_at, copy, sizeof, struct, text_at, u32, u64
from hypervisor.memory import frames
from hypervisor.model import TimerKind, Vm
from hypervisor.status import Status

IMAGE_NAME_BYTES: Final = 64
RAM_SECTORS_MOST: Final[u64] = 1 << 21  # 1 GiB
RATE_MOST: Final[u64] = 1 << 40


@struct
class Found:
    """The member, once load_ram_disks has checked its size."""

    member: Member
    header: DisksHeader
    present: bool


@struct
class Range:
    """Sectors of a host disk."""

    first: u64
    sectors: u64


found: Final = Found()
base: Final = Range()  # what `config` asks for, resolved
stored: Final = Range()  # and where its overlay lies; no sectors: not on the disk
config: Final = DiskConfig()  # the copies that are checked and used
ram_config: Final = RamDiskConfig()


def load_ram_disks() -> None:
    """Look for the member and make its disks in memory; what is wrong is said. Before attach."""
    disks.timer.kind = TimerKind.DISK
    member = found.member
    header = found.header
    if bundle.find(BUNDLE_DISKS_MEMBER, member) != Status.OK:
        return
    if member.size < sizeof(DisksHeader):
        refuse("krait.disks is cut off")
        return
    copy(header, at(DisksHeader, hva_of(member.hpa)))
    if header.magic != DISKS_MAGIC or header.version != ABI_VERSION or header.ram_config_size != sizeof(RamDiskConfig) \
            or header.disk_config_size != sizeof(DiskConfig):
        refuse("krait.disks is of another version")
        return
    wanted: u64 = u64(header.ram_count) * sizeof(RamDiskConfig) + u64(header.disk_count) * sizeof(DiskConfig)
    if member.size - sizeof(DisksHeader) < wanted:
        refuse("krait.disks is cut off")
        return
    found.present = True
    for i in range(header.ram_count):
        copy(ram_config, at(RamDiskConfig, Hva(hva_of(member.hpa) + sizeof(DisksHeader) + i * sizeof(RamDiskConfig))))
        ram_config.name[DISK_NAME_BYTES - 1] = 0
        ram_config.image[IMAGE_NAME_BYTES - 1] = 0
        make_ram_disk()


def make_ram_disk() -> None:
    """One from `ram_config`."""
    image = Member()
    base = Hpa(0)
    sectors: u64 = ram_config.sectors
    if ram_config.image[0] != 0:
        if bundle.find_bytes(address(ram_config.image), IMAGE_NAME_BYTES, image) != Status.OK:
            refuse("the image of a disk in memory is not in the bundle")
            return
        base = image.hpa
        sectors = image.size >> SECTOR_SHIFT
    elif sectors <= RAM_SECTORS_MOST:
        base = frames.alloc_contiguous_zeroed(((sectors << SECTOR_SHIFT) + PAGE_MASK) >> PAGE_SHIFT)
    if base == 0 or sectors == 0:
        refuse("no memory for a disk in memory")
        return
    host = host_disk.add()
    if host is None:
        refuse("too many disks")
        return
    host_disk.set_name(host, "ram", disks.host_count - 1)
    copy(host.serial, ram_config.name)
    ram_disk.init(host, base, sectors)


def attach(vm: Vm) -> str:
    """Give a VM that was just made the disks that its configuration (vm.config_index) asks for; what is wrong, empty: nothing."""
    if not found.present:
        return ""
    first: u64 = hva_of(found.member.hpa) + sizeof(DisksHeader) + u64(found.header.ram_count) * sizeof(RamDiskConfig)
    for i in range(found.header.disk_count):
        copy(config, at(DiskConfig, Hva(first + i * sizeof(DiskConfig))))
        config.name[DISK_NAME_BYTES - 1] = 0
        config.host[DISK_NAME_BYTES - 1] = 0
        if config.vm == vm.config_index:
            host = host_disk.find(text_at(address(config.host)))
            if host is None:
                return "the machine has no disk of the name that one of its disks asks for"
            problem = first_problem(host)
            if char_at(problem, 0) != 0:
                return problem
            if not make(vm, host):
                return "too many disks, or no memory for one"
    return ""


def first_problem(host: HostDisk) -> str:
    """What is wrong with `config` on this host disk; empty: nothing, and `base` and `stored` are set."""
    if config.flags & ~(DISK_READ_ONLY | DISK_OVERLAY_STORED | DISK_OVERLAY_KEPT) != 0:
        return "one of its disks has flags that are not known"
    stores = config.flags & DISK_OVERLAY_STORED != 0
    base.first = config.first
    base.sectors = config.sectors
    stored.first = config.overlay_first
    stored.sectors = config.overlay_bytes >> SECTOR_SHIFT if stores else 0
    problem = resolve(host, config.partition, base)
    if char_at(problem, 0) == 0 and stores:
        problem = resolve(host, config.overlay_partition, stored)
    if char_at(problem, 0) != 0:
        return problem
    if stores and (host.read_only or meets(stored, base.first, base.sectors)):
        return "the overlay of one of its disks cannot be written, or overlaps what it is for"
    if host.read_only and config.flags & DISK_READ_ONLY == 0 and config.overlay_bytes == 0:
        return "the host's disk of one of its disks can only be read"
    if config.requests_a_second > RATE_MOST or config.bytes_a_second > RATE_MOST or config.overlay_bytes > RATE_MOST:
        return "a limit of one of its disks is out of range"
    writes = config.flags & (DISK_READ_ONLY | DISK_OVERLAY_STORED) == 0 and config.overlay_bytes == 0
    for other in disks.virtual:
        if other is not None and other.host == host:
            store = other.overlay.store
            if meets(base, other.first, other.sectors) and (writes or virtual_disk.writes_host(other)) or meets(base, store.first, store.sectors) \
                    or meets(stored, other.first, other.sectors) or meets(stored, store.first, store.sectors):
                return "one of its disks overlaps another that is written"
    return ""


def resolve(host: HostDisk, partition: u32, wanted: Range) -> str:
    """Make a partition, or a range that may go to the end, sectors of this disk. What is wrong; empty: nothing."""
    if partition != 0:
        if partition > MAX_PARTITIONS or host.partitions[partition - 1].sectors == 0:
            return "one of its disks is a partition that is not there"
        wanted.first = host.partitions[partition - 1].first
        wanted.sectors = host.partitions[partition - 1].sectors
    if wanted.first >= host.sectors:
        return "one of its disks begins beyond the host's disk"
    if wanted.sectors == 0:
        wanted.sectors = host.sectors - wanted.first
    return "one of its disks reaches beyond the host's disk" if wanted.sectors > host.sectors - wanted.first else ""


def meets(wanted: Range, first: u64, sectors: u64) -> bool:
    """Do the two share a sector?"""
    return wanted.sectors != 0 and sectors != 0 and wanted.first < first + sectors and first < wanted.first + wanted.sectors


def make(vm: Vm, host: HostDisk) -> bool:
    """The disk of `config`, which has no problem."""
    disk = virtual_disk.create(vm, host, base.first, base.sectors)
    if disk is None:
        return False
    copy(disk.name, config.name)
    disk.read_only = config.flags & DISK_READ_ONLY != 0
    disk.can_discard = host.can_discard and not disk.read_only
    if stored.sectors != 0:
        if not overlay_store.create(disk, stored.first, stored.sectors, config.flags & DISK_OVERLAY_KEPT != 0):
            return False
    elif config.overlay_bytes != 0 and not overlay.create(disk, config.overlay_bytes):
        return False
    disk.requests_limit.rate = config.requests_a_second
    disk.bytes_limit.rate = config.bytes_a_second
    return True


def refuse(why: str) -> None:
    """Say it."""
    say(f"disks refused: {why}")
