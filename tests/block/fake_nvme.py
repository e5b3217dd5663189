"""An NVMe controller in memory: what it finds in its queues it serves when the test says so. Written from NVMe 1.4, 3.1, 4 and 6."""
from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from hypervisor.block.model import SECTOR

CC, CSTS, ASQ, ACQ, DOORBELLS = 0x14, 0x1C, 0x28, 0x30, 0x1000
KINDS = {0: 4, 1: 1, 2: 0, 9: 11}  # opcodes as virtio's types, by which the tests tell them
SIZE = 64


@dataclass
class Pending:
    """A command that the controller has fetched and not ended."""

    identifier: int
    kind: int
    sector: int
    pieces: list[tuple[int, int]]


class FakeNvme:
    """In front of `world`'s memory; `registers` are two pages, doorbells in the second."""

    def __init__(self, world: Any, registers: int, sectors: int) -> None:
        self.world, self.registers = world, registers
        self.image = bytearray((sector * 37 + byte) & 0xFF for sector in range(sectors) for byte in range(SECTOR))
        self.durable = bytes(self.image)
        self.bad: set[int] = set()
        self.served: list[tuple[int, int, int]] = []
        self.reset()

    def reset(self) -> None:
        """Disabled: it knows of nothing."""
        self.pending: list[Pending] = []
        self.heads, self.tails, self.queues, self.ended = [0, 0], [0, 0], [0, 0], [0, 0]

    def number(self, place: int, size: int) -> int:
        return int.from_bytes(self.world.read(place, size), "little")

    def look(self) -> None:
        """Obey CC, carry out admin commands, fetch others."""
        enabled = self.number(self.registers + CC, 4) & 1
        if enabled and not self.number(self.registers + CSTS, 4):
            assert self.number(self.registers + CC, 4) == 1 | 6 << 16 | 4 << 20
            self.reset()
            self.queues[0], self.ended[0] = self.number(self.registers + ASQ, 8), self.number(self.registers + ACQ, 8)
            self.world.write(self.registers + DOORBELLS, bytes(16))
        elif not enabled:
            self.reset()
        self.world.write(self.registers + CSTS, struct.pack("<I", enabled))
        for queue in (0, 1) if enabled else ():
            while self.queues[queue] and self.heads[queue] != self.number(self.registers + DOORBELLS + 8 * queue, 4):
                command = self.world.read(self.queues[queue] + 64 * self.heads[queue], 64)
                self.heads[queue] = (self.heads[queue] + 1) % SIZE
                (self.admin if queue == 0 else self.fetch)(command)

    def admin(self, command: bytes) -> None:
        """Create queue 1, of either sort."""
        first, _, _, _, place, _, cdw10, cdw11 = struct.unpack_from("<IIQQQQII", command)
        assert cdw10 == 1 | (SIZE - 1) << 16
        if first & 0xFF == 5:
            assert cdw11 == 3
            self.ended[1] = place
        else:
            assert first & 0xFF == 1 and cdw11 == 1 | 1 << 16 and self.ended[1]
            self.queues[1] = place
        self.complete(0, first >> 16, 0)

    def fetch(self, command: bytes) -> None:
        first, namespace, _, _, prp1, prp2, low, high, count = struct.unpack_from("<IIQQQQIII", command)
        assert namespace == 1
        kind = KINDS[first & 0xFF]
        if kind in (0, 1):
            pieces = self.memory(prp1, prp2, (count + 1) * SECTOR)
        else:
            pieces = [(prp1, 16)] if kind == 11 else []
        self.pending.append(Pending(first >> 16, kind, low | high << 32 if kind in (0, 1) else 0, pieces))

    def memory(self, prp1: int, prp2: int, length: int) -> list[tuple[int, int]]:
        """The pieces that PRP1 and PRP2 stand for."""
        pieces = [(prp1, min(length, 4096 - prp1 % 4096))]
        left = length - pieces[0][1]
        pages = -(-left // 4096)
        entries = [prp2] if pages == 1 else [self.number(prp2 + 8 * i, 8) for i in range(pages)]
        for entry in entries:
            assert entry % 4096 == 0
            pieces.append((entry, min(left, 4096)))
            left -= pieces[-1][1]
        return pieces

    def serve(self, which: int) -> None:
        """End one of those pending."""
        request = self.pending.pop(which % len(self.pending))
        size = sum(length for _, length in request.pieces)
        sectors = size // SECTOR
        self.served.append((request.kind, request.sector, sectors))
        if request.kind in (0, 1) and any(sector in self.bad for sector in range(request.sector, request.sector + sectors)):
            self.complete(1, request.identifier, 0x281)  # unrecovered read error
            return
        start = request.sector * SECTOR
        for place, length in request.pieces if request.kind in (0, 1) else []:
            if request.kind == 0:
                self.world.write(place, bytes(self.image[start:start + length]))
            else:
                self.image[start:start + length] = self.world.read(place, length)
            start += length
        if request.kind == 4:
            self.durable = bytes(self.image)
        if request.kind == 11:
            _, count, first = struct.unpack("<IIQ", self.world.read(request.pieces[0][0], 16))
            self.image[first * SECTOR:(first + count) * SECTOR] = bytes(count * SECTOR)
        self.complete(1, request.identifier, 0)

    def complete(self, queue: int, identifier: int, status: int) -> None:
        """The next completion entry; the phase bit turns with each round."""
        place, phase = self.tails[queue] % SIZE, 1 - self.tails[queue] // SIZE % 2
        self.tails[queue] += 1
        entry = struct.pack("<IIII", 0, 0, self.heads[queue] | queue << 16, identifier | phase << 16 | status << 17)
        self.world.write(self.ended[queue] + 16 * place, entry)
