"""Two worlds with one VM whose memory is all backed, and a hostile driver in it: interpreted, and on a host library. A driver is a module
of `begin`, `turns`, `end` and `run`, named by its last name."""
from __future__ import annotations

from types import ModuleType
from typing import Any

from host_library import HostLibrary
from hypervisor.addresses import PAGE_SIZE, Gfn, Gpa
from hypervisor.memory import backing, guest_memory
from hypervisor.sched.quantum import QUANTUM_NS
from hypervisor.status import Status
from tests.memory.compiled import FIRST, LEDGER, MEMORY, MODULES, CompiledWorld
from tests.memory.world import World, vcpu_of
from tests.virtio import console_fuzz, ring_fuzz

FUZZ = "tests.virtio"
DRIVERS: dict[str, ModuleType] = {"ring_fuzz": ring_fuzz, "console_fuzz": console_fuzz}
COUNTS = {"ring_fuzz": ("taken", "broken", "segments", "wrong"), "console_fuzz": ("starts", "typed", "waits", "broken", "wrong")}
ALL_MODULES = [*MODULES, *(f"{FUZZ}.{driver}" for driver in DRIVERS)]
FRAMES, PAGES = 200, 64


def compiled_run(library: HostLibrary, driver: str, seed: int) -> tuple[CompiledWorld, Any, Any]:
    """A world, its VM, and the driver's globals, begun."""
    world = CompiledWorld(library, FRAMES, 0, True)
    world.call("hypervisor.sched.policy.start", QUANTUM_NS, 1)
    assert world.vm(PAGES, 1) == 0
    vm = world.vms[0]
    for gfn in range(PAGES):
        assert world.call(f"{MEMORY}.backing.back", vm, gfn) == Status.OK
    shift = world.call(f"{MEMORY}.guest_memory.host_address", vm, 0)
    assert world.call(f"{MEMORY}.guest_memory.host_address", vm, (PAGES - 1) * PAGE_SIZE) == shift + (PAGES - 1) * PAGE_SIZE
    run = world.stored(f"{FUZZ}.{driver}.run", f"{FUZZ}.{driver}.Run")
    assert world.call(f"{FUZZ}.{driver}.begin", vm, world.vcpus[0], seed, shift) == Status.OK
    return world, vm, run


def interpreted_run(driver: str, seed: int) -> World:
    """Likewise; the caller closes it."""
    world = World(FRAMES, 0, True, FIRST, LEDGER)
    vm = world.vm(PAGES)
    for gfn in range(PAGES):
        assert backing.back(vm, Gfn(gfn)) == Status.OK
    assert DRIVERS[driver].begin(vm, vcpu_of(vm), seed, guest_memory.host_address(vm, Gpa(0))) == Status.OK
    return world


def counts(driver: str, run: Any) -> list[int]:
    """What came of it."""
    return [getattr(run, name) for name in COUNTS[driver]]
