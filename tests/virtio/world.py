"""Two worlds with one VM whose memory is all backed, and rings in it: interpreted, and on a host library."""
from __future__ import annotations

from typing import Any

from host_library import HostLibrary
from hypervisor.addresses import PAGE_SIZE, Gfn, Gpa
from hypervisor.memory import backing, guest_memory
from hypervisor.status import Status
from tests.memory.compiled import FIRST, LEDGER, MEMORY, MODULES, CompiledWorld
from tests.memory.world import World, vcpu_of
from tests.virtio import ring_fuzz

FUZZ = "tests.virtio.ring_fuzz"
ALL_MODULES = [*MODULES, FUZZ]
FRAMES, PAGES = 200, 64
COUNTS = ("taken", "broken", "segments", "wrong")


def compiled_run(library: HostLibrary, seed: int) -> tuple[CompiledWorld, Any, Any]:
    """A world, its VM, and the globals of ring_fuzz, begun."""
    world = CompiledWorld(library, FRAMES, 0, True)
    assert world.vm(PAGES, 1) == 0
    vm = world.vms[0]
    for gfn in range(PAGES):
        assert world.call(f"{MEMORY}.backing.back", vm, gfn) == Status.OK
    shift = world.call(f"{MEMORY}.guest_memory.host_address", vm, 0)
    assert world.call(f"{MEMORY}.guest_memory.host_address", vm, (PAGES - 1) * PAGE_SIZE) == shift + (PAGES - 1) * PAGE_SIZE
    run = world.stored(f"{FUZZ}.run", f"{FUZZ}.Run")
    assert world.call(f"{FUZZ}.begin", vm, world.vcpus[0], seed, shift) == Status.OK
    return world, vm, run


def interpreted_run(seed: int) -> World:
    """Likewise; the caller closes it."""
    world = World(FRAMES, 0, True, FIRST, LEDGER)
    vm = world.vm(PAGES)
    for gfn in range(PAGES):
        assert backing.back(vm, Gfn(gfn)) == Status.OK
    assert ring_fuzz.begin(vm, vcpu_of(vm), seed, guest_memory.host_address(vm, Gpa(0))) == Status.OK
    return world
