"""VMs with virtual disks on one fake device; the same calls whether interpreted or compiled."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypervisor.addresses import PAGE_SIZE
from hypervisor.block.model import MAX_SEGMENTS, SECTOR, Completion, Direction, DriverKind
from hypervisor.status import Status
from tests.block.fake_virtio import FakeVirtio

BLOCK = "hypervisor.block"
VIRTIO = "hypervisor.drivers.virtio_blk"
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


@dataclass
class Rig:
    """`weights`: a VM with one disk of `room` sectors each."""

    world: Any
    weights: list[int]
    room: int = 512
    most_sectors: int = 256
    most_segments: int = MAX_SEGMENTS
    depth: int = 64
    checked: bool = True  # requests in flight share no memory
    log: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        world = self.world
        self.now = 1_000_000
        registers = int(world.call("hypervisor.memory.frames.alloc_zeroed"))
        ring_pages = 24
        self.host = world.struct(f"{BLOCK}.model.HostDisk", world.call(f"{BLOCK}.host_disk.add"))
        unit = world.struct(f"{VIRTIO}.VirtioBlk", world.units())
        unit.common = unit.notify_base = unit.isr = unit.config = registers
        unit.notify_multiplier = 0
        unit.ring = world.call("hypervisor.memory.frames.alloc_contiguous_zeroed", ring_pages)
        world.write(registers + 4, b"\xff\xff\xff\xff")  # every feature
        world.write(registers + 0x18, (64).to_bytes(2, "little"))
        self.unit, self.registers = unit, registers
        sectors = FIRST_SECTOR + self.room * len(self.weights) + 50
        self.device = FakeVirtio(world, registers, sectors)
        self.before = bytes(self.device.image)
        assert world.call(f"{VIRTIO}.reset", self.host, True) == Status.OK
        host = self.host
        host.kind, host.sectors, host.depth = DriverKind.VIRTIO_BLK, sectors, self.depth
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
            self.asked.append(Asked(disk, request, direction, sector, int(request.sectors), places))
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
        if self.host.resets != resets:
            self.device.reset()
        self.device.look()
        for asked in [asked for asked in self.asked if not asked.request.submitted]:
            self.asked.remove(asked)
            outcome = int(asked.request.outcome)
            self.log.append(("end", asked.disk, asked.direction, asked.sector, asked.sectors, outcome))
            self.check(asked, outcome)
            self.world.call(f"{BLOCK}.virtual_disk.give_back", asked.request)

    def check(self, asked: Asked, outcome: int) -> None:
        """What was read or written is what lies on the device, in the disk's own range."""
        start = (FIRST_SECTOR + asked.disk * self.room + asked.sector) * SECTOR
        data = b"".join(self.world.read(place, length) for place, length in asked.pieces)
        if self.checked and outcome == 0 and asked.direction in (Direction.READ, Direction.WRITE):
            assert data == self.device.image[start:start + len(data)]
        if outcome == 0 and asked.direction == Direction.DISCARD:
            assert not any(self.device.image[start:start + asked.sectors * SECTOR])

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
