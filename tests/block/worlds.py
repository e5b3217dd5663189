"""The block layer and the virtio-blk driver, interpreted or compiled, over the same fake memory and in front of a fake device."""
from __future__ import annotations

import ctypes
import importlib
from functools import partial
from typing import Any

from host_library import HostLibrary
from hypervisor.addresses import PAGE_SIZE
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.lang import at, clear, region_of
from tests.memory.compiled import FIRST, LEDGER, CompiledWorld
from tests.memory.world import World

BLOCK = "hypervisor.block"
MODULES = ["hypervisor.block.scheduler", "hypervisor.disk_config", "hypervisor.drivers.discover",
           "hypervisor.memory.ledger_check", "hypervisor.memory.guest_paging", "hypervisor.memory.holes", "hypervisor.paging.release",
           "hypervisor.arch_x86.svm.nested_format", "hypervisor.arch_x86.vtx.nested_format"]
GLOBALS = {f"{BLOCK}.model.disks": "Disks", f"{BLOCK}.scheduler.choice": "Choice"}
FRAMES = 3000


class Interpreted:
    """CPython runs it."""

    def __init__(self) -> None:
        self.world = World(FRAMES, 0, False, FIRST, LEDGER)
        machine.tsc_step = 0
        machine.tsc = 1_000_000
        for name in GLOBALS:
            clear(self.stored(name))

    def stored(self, name: str) -> Any:
        module, _, variable = name.rpartition(".")
        return getattr(importlib.import_module(module), variable)

    def call(self, name: str, *arguments: Any) -> Any:
        return self.stored(name)(*arguments)

    def struct(self, name: str, place: Any) -> Any:
        """What a function answered, as the struct that it is."""
        return at(self.stored(name), place) if isinstance(place, int) else place

    def first(self, name: str, kind: str) -> Any:
        """The first of an array of structs."""
        return self.stored(name)[0]

    def attach_ports(self, ports: range, device: Any) -> None:
        """Let `device` answer at these ports."""
        for port in ports:
            machine.port_readers[port] = partial(device.read, port)
            machine.port_writers[port] = partial(device.write, port)

    def vm(self, weight: int) -> Any:
        return self.world.vm(64, weight)

    def cpu(self) -> Any:
        return self.stored("hypervisor.cpu.cpus")[0]

    def set_time(self, tsc: int) -> None:
        machine.tsc = tsc

    def read(self, place: int, size: int) -> bytes:
        region, offset = region_of(place, size)
        return bytes(region.data[offset:offset + size])

    def write(self, place: int, data: bytes) -> None:
        region, offset = region_of(place, len(data))
        region.data[offset:offset + len(data)] = data

    def close(self) -> None:
        self.world.close()


class Compiled:
    """gcc's code runs it."""

    def __init__(self, library: HostLibrary) -> None:
        self.world = CompiledWorld(library, FRAMES, 0, False)
        self.library = library
        self.tsc = 1_000_000
        self.ports: set[int] = set()
        library.hook("hypervisor.arch_x86.intrinsics.rdtsc", lambda: self.tsc)
        for name, kind in GLOBALS.items():
            stored = self.world.stored(name, kind)
            ctypes.memset(ctypes.addressof(stored), 0, ctypes.sizeof(stored))

    def stored(self, name: str) -> Any:
        return self.world.stored(name, GLOBALS[name])

    def call(self, name: str, *arguments: Any) -> Any:
        return self.world.call(name, *arguments)

    def struct(self, name: str, place: Any) -> Any:
        return self.library.struct(name).from_address(place) if place else None

    def first(self, name: str, kind: str) -> Any:
        """The first of an array of structs."""
        return self.library.storage(name, self.library.struct(kind))

    def attach_ports(self, ports: range, device: Any) -> None:
        """Let `device` answer at these ports, and nobody at others."""
        for width in ("b", "w", "l"):
            self.library.hook(f"hypervisor.arch_x86.intrinsics.in{width}", lambda port: device.read(port) if port in self.ports else 0xFF)
            self.library.hook(f"hypervisor.arch_x86.intrinsics.out{width}", lambda port, value: device.write(port, value))
        self.ports.update(ports)

    def vm(self, weight: int) -> Any:
        assert self.world.vm(64, weight) == 0
        return self.world.vms[-1]

    def cpu(self) -> Any:
        return self.world.stored("hypervisor.cpu.cpus", "hypervisor.model.Cpu")

    def set_time(self, tsc: int) -> None:
        self.tsc = tsc

    def read(self, place: int, size: int) -> bytes:
        return ctypes.string_at(place, size)

    def write(self, place: int, data: bytes) -> None:
        ctypes.memmove(place, data, len(data))

    def close(self) -> None:
        """The memory stays for the next."""
