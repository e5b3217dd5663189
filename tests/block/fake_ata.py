"""An IDE channel with one ATA disk and bus-master DMA, behind ports. Written from ATA/ATAPI-6 and the Bus Master IDE document."""
from __future__ import annotations

import struct
from typing import Any

from hypervisor.block.model import SECTOR

COMMAND, CONTROL, BUS_MASTER = 0x1F0, 0x3F6, 0xC000
KINDS = {0x25: 0, 0x35: 1, 0xEA: 4, 0x06: 11}
BSY, DRDY, ERR = 0x80, 0x40, 0x01


class FakeAta:
    """At most one command is pending."""

    def __init__(self, world: Any, sectors: int) -> None:
        self.world = world
        self.image = bytearray((sector * 37 + byte) & 0xFF for sector in range(sectors) for byte in range(SECTOR))
        self.durable = bytes(self.image)
        self.bad: set[int] = set()
        self.served: list[tuple[int, int, int]] = []
        self.files: dict[int, list[int]] = {port: [0, 0] for port in range(1, 7)}  # two bytes deep
        self.bm_command = self.bm_status = self.table = 0
        self.reset()

    def reset(self) -> None:
        self.pending: list[tuple[int, int, int]] = []  # kind, sector, count
        self.issued: tuple[int, int, int] | None = None  # DMA command, waiting for the bus master
        self.status = DRDY

    def read(self, port: int) -> int:
        if port in (COMMAND + 7, CONTROL):
            return self.status
        return self.bm_status if port == BUS_MASTER + 2 else 0

    def write(self, port: int, value: int) -> None:
        if COMMAND < port < COMMAND + 7:
            self.files[port - COMMAND] = [value, self.files[port - COMMAND][0]]
        elif port == COMMAND + 7:
            self.command(value)
        elif port == CONTROL and value & 4:
            self.reset()
        elif port == BUS_MASTER:
            self.bm_command = value
            if value & 1 and self.issued is not None:
                self.pending, self.issued = [self.issued], None
        elif port == BUS_MASTER + 2:
            self.bm_status &= ~(value & 6)
        elif port == BUS_MASTER + 4:
            self.table = value

    def command(self, value: int) -> None:
        assert not self.status & BSY and not self.pending
        kind = KINDS[value]
        now, before = ({port: file[age] for port, file in self.files.items()} for age in (0, 1))
        sector = sum(byte << shift for byte, shift in zip((now[3], now[4], now[5], before[3], before[4], before[5]), range(0, 48, 8)))
        count = now[2] | before[2] << 8
        assert now[6] & 0x50 == 0x40  # LBA, the master
        self.status = BSY
        if kind == 4:
            self.pending = [(kind, sector, 0)]
        else:
            assert kind != 11 or (now[1] == 1 and count == 1)
            self.issued = (kind, sector, count)

    def look(self) -> None:
        """Commands arrive by themselves."""

    def memory(self) -> list[tuple[int, int]]:
        """The regions of the table."""
        pieces, place, last = [], self.table, 0
        while not last:
            address, count, last = struct.unpack("<IHH", self.world.read(place, 8))
            length = count or 0x10000
            assert address & 1 == 0 and address // 0x10000 == (address + length - 1) // 0x10000
            pieces.append((address, length))
            place += 8
        return pieces

    def serve(self, which: int) -> None:
        """End what is pending, and interrupt."""
        kind, sector, count = self.pending.pop()
        self.served.append((kind, sector, count if kind in (0, 1) else 0))
        self.status = DRDY
        if kind in (0, 1) and any(place in self.bad for place in range(sector, sector + count)):
            self.status |= ERR
        elif kind in (0, 1):
            assert bool(self.bm_command & 8) == (kind == 0) and sum(length for _, length in self.memory()) == count * SECTOR
            start = sector * SECTOR
            for place, length in self.memory():
                if kind == 0:
                    self.world.write(place, bytes(self.image[start:start + length]))
                else:
                    self.image[start:start + length] = self.world.read(place, length)
                start += length
        elif kind == 4:
            self.durable = bytes(self.image)
        else:
            (place, _), = self.memory()
            entry, = struct.unpack("<Q", self.world.read(place, 8))
            first, length = entry & (1 << 48) - 1, entry >> 48
            self.image[first * SECTOR:(first + length) * SECTOR] = bytes(length * SECTOR)
        self.bm_status |= 4
