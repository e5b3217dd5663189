"""VMs with virtual disks on one fake device; the same calls whether interpreted or compiled."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypervisor.addresses import PAGE_SIZE
from hypervisor.block.model import MAX_SEGMENTS, SECTOR, Completion, Direction, DriverKind
from hypervisor.status import Status
from tests.block.fake_ata import FakeAta
from tests.block.fake_nvme import FakeNvme
from tests.block.fake_virtio import FakeVirtio

BLOCK = "hypervisor.block"
VIRTIO = "hypervisor.drivers.virtio_blk"
NVME = "hypervisor.drivers.nvme"
ATA = "hypervisor.drivers.ata"
SECONDS = 1_000_000_000  # in ticks
FIRST_SECTOR = 100  # of the first virtual disk; each has ROOM


@dataclass
class Asked:
    """A request that was accepted."""

    disk: int
    request: Any
    direction: int
    sector: int
    sectors: int
    pieces: list[tuple[int, int]]
    order: int  # among all that were accepted


@dataclass
class Written:
    """A WRITE or DISCARD, by its place on the host disk; `data` once a WRITE has ended well, at step `ended`."""

    order: int
    start: int
    end: int
    data: bytes | None = None
    ended: int = 0


@dataclass
class Rig:
    """`weights`: a VM with one disk of `room` sectors each."""

    world: Any
    weights: list[int]
    room: int = 512
    most_sectors: int = 256
    most_segments: int = MAX_SEGMENTS
    depth: int = 64
    kind: str = "virtio"
    checked: bool = True  # requests in flight share no memory
    sectors: int = 0  # of the host disk; 0: as many as are needed
    log: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        world = self.world
        self.now = 1_000_000
        self.host = world.struct(f"{BLOCK}.model.HostDisk", world.call(f"{BLOCK}.host_disk.add"))
        sectors = self.sectors or FIRST_SECTOR + self.room * len(self.weights) + 50
        makers: dict[str, Callable[[int], Any]] = {"virtio": self.virtio, "nvme": self.nvme, "ata": self.ata}
        self.device = makers[self.kind](sectors)
        self.before = bytes(self.device.image)
        host = self.host
        host.sectors = sectors
        host.most_sectors, host.most_segments = self.most_sectors, self.most_segments
        host.can_flush = host.can_discard = True
        host.discard_most = 64
        self.vms = [world.vm(weight) for weight in self.weights]
        self.disks = []
        for index, vm in enumerate(self.vms):
            disk = world.call(f"{BLOCK}.virtual_disk.create", vm, host, FIRST_SECTOR + index * self.room, self.room)
            self.disks.append(world.struct(f"{BLOCK}.model.VirtualDisk", disk))
        self.frames = [[int(world.call("hypervisor.memory.frames.alloc_private", vm, gfn)) for gfn in range(40)] for vm in self.vms]
        self.asked: list[Asked] = []
        self.history: dict[int, Written] = {}
        self.order = 0

    def virtio(self, sectors: int) -> FakeVirtio:
        """A virtio-blk device, its driver started."""
        world, host = self.world, self.host
        registers = int(world.call("hypervisor.memory.frames.alloc_zeroed"))
        unit = world.first(f"{VIRTIO}.units", f"{VIRTIO}.VirtioBlk")
        unit.common = unit.notify_base = unit.isr = unit.config = registers
        unit.notify_multiplier = 0
        unit.ring = world.call("hypervisor.memory.frames.alloc_contiguous_zeroed", 24)
        world.write(registers + 4, b"\xff\xff\xff\xff")  # every feature
        world.write(registers + 0x18, (64).to_bytes(2, "little"))
        host.kind, host.depth = DriverKind.VIRTIO_BLK, self.depth
        assert world.call(f"{VIRTIO}.reset", host, True) == Status.OK
        return FakeVirtio(world, registers, sectors)

    def nvme(self, sectors: int) -> FakeNvme:
        """An NVMe controller, its driver started step by step."""
        world, host = self.world, self.host
        registers = int(world.call("hypervisor.memory.frames.alloc_contiguous_zeroed", 2))
        unit = world.first(f"{NVME}.units", f"{NVME}.Nvme")
        unit.registers, unit.stride, unit.vector = registers, 4, 0
        unit.queues = world.call("hypervisor.memory.frames.alloc_contiguous", 16 + 8)
        host.kind, host.depth, host.whole_pages = DriverKind.NVME, min(self.depth, 63), True
        device = FakeNvme(world, registers, sectors)
        status = world.call(f"{NVME}.reset", host, True)
        for _ in range(10):
            device.look()
            if status != Status.WAIT:
                break
            status = world.call(f"{NVME}.reset", host, False)
        assert status == Status.OK
        return device

    def ata(self, sectors: int) -> FakeAta:
        """The master on an IDE channel."""
        channel = self.world.first(f"{ATA}.channels", f"{ATA}.Channel")
        channel.command, channel.control, channel.bus_master, channel.host = 0x1F0, 0x3F6, 0xC000, 0xFFFF_FFFF
        channel.tables = self.world.call("hypervisor.memory.frames.alloc_zeroed")
        drive = self.world.first(f"{ATA}.drives", f"{ATA}.Drive")
        drive.channel = drive.number = 0
        device = FakeAta(self.world, sectors)
        for ports in (range(0x1F0, 0x1F8), range(0x3F6, 0x3F7), range(0xC000, 0xC008)):
            self.world.attach_ports(ports, device)
        self.host.kind, self.host.depth = DriverKind.ATA, 1
        return device

    def submit(self, disk: int, direction: int, sector: int, pieces: list[tuple[int, int]], sectors: int | None = None) -> int:
        """Ask with memory of the VM: (frame, sectors of it) each; the Status, or -1 if no request could be taken."""
        world, target = self.world, self.disks[disk]
        taken = world.call(f"{BLOCK}.virtual_disk.take", target)
        if not taken:
            return -1
        request = world.struct(f"{BLOCK}.model.Request", taken)
        request.direction = Direction(direction)
        request.completion = Completion.KEPT
        request.sector = sector
        places = [(self.frames[disk][frame], count * SECTOR) for frame, count in pieces]
        request.sectors = sum(count for _, count in pieces) if sectors is None else sectors
        for place, length in places:
            assert world.call(f"{BLOCK}.virtual_disk.add_segment", request, place, length)
        status = int(world.call(f"{BLOCK}.virtual_disk.submit", target, request))
        if status == Status.OK:
            self.order += 1
            self.asked.append(Asked(disk, request, direction, sector, int(request.sectors), places, self.order))
            if direction in (Direction.WRITE, Direction.DISCARD):
                start = self.place(disk, sector)
                self.history[self.order] = Written(self.order, start, start + int(request.sectors) * SECTOR)
        else:
            world.call(f"{BLOCK}.virtual_disk.give_back", request)
        self.log.append(("submit", disk, direction, sector, status))
        return status

    def turn(self) -> None:
        """One turn of the run loop's disk work; ends are checked and logged, the device looks at its queue."""
        self.now += 1000
        self.world.set_time(self.now)
        resets = self.host.resets
        self.world.call(f"{BLOCK}.scheduler.turn", self.world.cpu())
        if self.host.resets != resets and self.kind == "virtio":
            self.device.reset()  # its status register is memory
        self.device.look()
        for asked in [asked for asked in self.asked if not asked.request.submitted]:
            self.asked.remove(asked)
            outcome = int(asked.request.outcome)
            self.log.append(("end", asked.disk, asked.direction, asked.sector, asked.sectors, outcome))
            self.check(asked, outcome)
            self.world.call(f"{BLOCK}.virtual_disk.give_back", asked.request)

    def check(self, asked: Asked, outcome: int) -> None:
        """What was read or written is what lies on the device, in the disk's own range."""
        start = self.place(asked.disk, asked.sector)
        data = b"".join(self.world.read(place, length) for place, length in asked.pieces)
        if self.checked and outcome == 0 and asked.direction in (Direction.READ, Direction.WRITE):
            assert data == self.device.image[start:start + len(data)]
        if outcome == 0 and asked.direction == Direction.DISCARD:
            assert not any(self.device.image[start:start + asked.sectors * SECTOR])

        if self.checked and outcome == 0 and asked.direction == Direction.WRITE:
            self.history[asked.order].data, self.history[asked.order].ended = data, self.order
        if self.checked and outcome == 0 and asked.direction == Direction.FLUSH:
            self.check_durable(asked)

    def place(self, disk: int, sector: int) -> int:
        """Where a virtual disk's sector lies on the host disk, in bytes."""
        return (FIRST_SECTOR + disk * self.room + sector) * SECTOR

    def check_durable(self, flush: Asked) -> None:
        """If power fails now: what had ended before the flush was submitted, and was not written over, is there."""
        for write in self.history.values():
            later = any(other.order > write.order and other.start < write.end and write.start < other.end for other in self.history.values())
            if write.data is not None and write.ended < flush.order and not later:
                assert self.device.durable[write.start:write.end] == write.data

    def wait(self, seconds: int) -> None:
        """Time passes and nothing happens."""
        self.now += seconds * SECONDS

    def drain(self) -> None:
        """Serve all that is left, in order."""
        for _ in range(4000):
            self.turn()
            if self.device.pending:
                self.device.serve(0)
            elif not any(disk.outstanding for disk in self.disks):
                return
        raise AssertionError("it does not come to an end")

    def pins(self) -> int:
        """Frames of VMs that are pinned."""
        return sum(self.world.read(0x2000_0000 + 16 * (frame // PAGE_SIZE) + 1, 1) != b"\0" for frames in self.frames for frame in frames)
