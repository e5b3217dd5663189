"""The compiled twin of world.World: the same calls on a host library, over real memory at the same addresses."""
from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from host_library import HostLibrary
from hypervisor.addresses import PAGE_SIZE
from tests.memory.world import TSC_KHZ

ROOT = Path(__file__).resolve().parents[2]
MEMORY = "hypervisor.memory"
PAGING = "hypervisor.paging"
MODULES = [f"{MEMORY}.ledger_check", f"{MEMORY}.guest_paging", f"{MEMORY}.holes", f"{PAGING}.release",
           "hypervisor.arch_x86.svm.nested_format", "hypervisor.arch_x86.vtx.nested_format"]
FIRST = 0x8000  # the frames stand at 128 MiB in this process too
LEDGER = 0x2000_0000
ENTRY_BYTES = 16
GLOBALS = {f"{MEMORY}.ledger.book": "Book", f"{MEMORY}.frames.pool": "Pool", f"{MEMORY}.nested_walk.spaces": "AddressSpaces",
           f"{MEMORY}.nested_walk.entry_format": "EntryFormat", f"{MEMORY}.holes.ones": "Ones",
           f"{MEMORY}.guest_memory.random_wait": "RandomWait", f"{PAGING}.pressure.state": "Pressure",
           "hypervisor.sched.run_queue.queue": "RunQueue", "hypervisor.cpu.cpus": "hypervisor.model.Cpu"}

PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, MAP_FIXED_NOREPLACE = 3, 0x22, 0x100000
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
mapped: dict[int, int] = {}


def map_at(place: int, size: int) -> None:
    """Memory at a fixed address of this process; it stays for the next world of that size."""
    old = mapped.pop(place, 0)
    if old not in (0, size):  # worlds of several sizes, in tests that share this process
        libc.munmap(place, old)
        old = 0
    if old == 0 and libc.mmap(place, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != place:
        raise OSError(ctypes.get_errno(), f"no memory at {place:#x}")
    mapped[place] = size


class CompiledWorld:
    """As World, with frames [FIRST, FIRST + count)."""

    def __init__(self, library: HostLibrary, count: int, limit_frames: int, intel: bool) -> None:
        self.library, self.count = library, count
        sizes = {FIRST * PAGE_SIZE: count * PAGE_SIZE, LEDGER: -(-(FIRST + count) * ENTRY_BYTES // PAGE_SIZE) * PAGE_SIZE}
        for place, size in sizes.items():
            map_at(place, size)
            ctypes.memset(place, 0, size)
        ctypes.memset(FIRST * PAGE_SIZE, 0xA5, count * PAGE_SIZE)
        for name, kind in GLOBALS.items():
            stored = self.stored(name, kind)
            ctypes.memset(ctypes.addressof(stored), 0, ctypes.sizeof(stored))
        library.hook("hypervisor.arch_x86.intrinsics.wrmsr", lambda msr, value: None)
        library.hook("hypervisor.arch_x86.intrinsics.rdtsc", lambda: 1000)
        cpu = self.stored("hypervisor.cpu.cpus", "hypervisor.model.Cpu")
        library.hook("hypervisor.arch_x86.intrinsics.current_cpu", lambda: ctypes.addressof(cpu))
        self.stored("hypervisor.arch_x86.lapic.lapic", "Lapic").tsc_deadline = True
        self.call("hypervisor.clock.init", TSC_KHZ)
        self.call("hypervisor.timers.init", cpu)
        self.call(f"hypervisor.arch_x86.{'vtx' if intel else 'svm'}.nested_format.fill")
        self.call(f"{MEMORY}.ledger.start", LEDGER, FIRST + count)
        for hfn in reversed(range(FIRST, FIRST + count)):
            self.call(f"{MEMORY}.ledger.add", hfn, 1)
        self.call(f"{MEMORY}.frames.set_limit", limit_frames * PAGE_SIZE)
        self.vms: list[Any] = []
        self.vcpus: list[Any] = []

    def stored(self, name: str, kind: str) -> Any:
        full = kind if "." in kind else f"{name.rpartition('.')[0]}.{kind}"
        return self.library.storage(name, self.library.struct(full))

    def call(self, name: str, *arguments: Any) -> Any:
        return self.library.function(name)(*arguments)

    def vm(self, pages: int, weight: int) -> int:
        """Make one; the Status of nested.create."""
        made, vcpu = self.library.struct("hypervisor.model.Vm")(), self.library.struct("hypervisor.model.Vcpu")()
        made.id, made.memory_bytes, made.weight, made.state, made.vcpu_count = len(self.vms) + 1, pages * PAGE_SIZE, weight, 1, 1
        vcpu.vm = ctypes.addressof(made)
        vcpu.info_valid = True
        made.vcpus[0] = ctypes.addressof(vcpu)
        self.vms.append(made)
        self.vcpus.append(vcpu)
        return int(self.call(f"{MEMORY}.nested.create", made))

    def memory(self) -> tuple[bytes, bytes]:
        """All frames, and the ledger."""
        return (ctypes.string_at(FIRST * PAGE_SIZE, self.count * PAGE_SIZE),
                ctypes.string_at(LEDGER, (FIRST + self.count) * ENTRY_BYTES))
