"""A virtio-blk device in memory: what it finds in its queue it serves when the test says so, in any order, by error or never.

It has a cache that loses power: `durable` is what a FLUSH has seen. Written from VIRTIO 1.1, 2.6 and 5.2, not from the driver.
"""
from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from hypervisor.block.model import SECTOR

REGISTERS = {"desc": 0x20, "driver": 0x28, "device": 0x30}


@dataclass
class Pending:
    """A request that the device has seen and not ended."""

    head: int
    kind: int
    sector: int
    pieces: list[tuple[int, int]]
    status_at: int

    @property
    def size(self) -> int:
        return sum(length for _, length in self.pieces)


class FakeVirtio:
    """In front of `world`'s memory; `registers` is the page with its common configuration."""

    def __init__(self, world: Any, registers: int, sectors: int) -> None:
        self.world, self.registers = world, registers
        ramp = bytes(range(256)) * 3
        self.image = bytearray(b"".join(ramp[sector * 37 & 0xFF:][:SECTOR] for sector in range(sectors)))
        self.durable = bytes(self.image)
        self.bad: set[int] = set()
        self.served: list[tuple[int, int, int]] = []  # kind, sector, sectors
        self.reset()

    def reset(self) -> None:
        """As after a write of 0 to its status: it knows of nothing any more."""
        self.pending: list[Pending] = []
        self.seen = 0

    def number(self, place: int, size: int) -> int:
        return int.from_bytes(self.world.read(place, size), "little")

    def register(self, name: str) -> int:
        return self.number(self.registers + REGISTERS[name], 8)

    def look(self) -> None:
        """Take in what the driver has made available."""
        size = self.number(self.registers + 0x18, 2)
        while self.seen != self.number(self.register("driver") + 2, 2):
            head = self.number(self.register("driver") + 4 + 2 * (self.seen % size), 2)
            table, length, flags, _ = struct.unpack("<QIHH", self.world.read(self.register("desc") + 16 * head, 16))
            assert flags == 4 and length % 16 == 0
            self.pending.append(self.parse(head, table, length // 16))
            self.seen = (self.seen + 1) & 0xFFFF

    def parse(self, head: int, table: int, count: int) -> Pending:
        """One indirect table: header, memory, status."""
        chain, at = [], 0
        while True:
            place, length, flags, following = struct.unpack("<QIHH", self.world.read(table + 16 * at, 16))
            chain.append((place, length, flags & 2))
            if not flags & 1:
                break
            at = following
            assert at < count
        assert len(chain) == count and chain[0][1:] == (16, 0) and chain[-1][1:] == (1, 2)
        kind, _, sector = struct.unpack("<IIQ", self.world.read(chain[0][0], 16))
        assert all(flags == (2 if kind == 0 else 0) for _, _, flags in chain[1:-1])
        return Pending(head, kind, sector, [piece[:2] for piece in chain[1:-1]], chain[-1][0])

    def serve(self, which: int) -> None:
        """End one of those pending."""
        request = self.pending.pop(which % len(self.pending))
        sectors = request.size // SECTOR
        assert request.size % SECTOR == 0 or request.kind == 11
        touched = range(request.sector, request.sector + sectors) if request.kind in (0, 1) else range(0)
        self.served.append((request.kind, request.sector, sectors))
        if any(sector in self.bad for sector in touched):
            self.end(request, 1)
            return
        start = request.sector * SECTOR
        assert start + request.size <= len(self.image) or request.kind == 11
        for place, length in request.pieces if request.kind in (0, 1) else []:
            if request.kind == 0:
                self.world.write(place, bytes(self.image[start:start + length]))
            else:
                self.image[start:start + length] = self.world.read(place, length)
            start += length
        if request.kind == 4:
            self.durable = bytes(self.image)
        if request.kind == 11:
            first, count, _ = struct.unpack("<QII", self.world.read(request.pieces[0][0], 16))
            self.image[first * SECTOR:(first + count) * SECTOR] = bytes(count * SECTOR)
        self.end(request, 0)

    def end(self, request: Pending, status: int) -> None:
        self.world.write(request.status_at, bytes([status]))
        used, size = self.register("device"), self.number(self.registers + 0x18, 2)
        index = self.number(used + 2, 2)
        self.world.write(used + 4 + 8 * (index % size), struct.pack("<II", request.head, request.size))
        self.world.write(used + 2, struct.pack("<H", (index + 1) & 0xFFFF))
