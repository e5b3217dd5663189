"""Random hypercalls by the million, on a sanitized host library in a process of its own.

    PYTHONPATH=.:build python -m tests.hostile.off_target 10000000
"""
from __future__ import annotations

import ctypes
import sys
import tempfile
import time
from pathlib import Path

from host_library import HostLibrary
from hypervisor.sched.quantum import QUANTUM_NS
from tests import sanitized
from tests.memory.compiled import MODULES, CompiledWorld

MODULE = "tests.hostile.off_target"
CALLS = "tests.hostile.calls"
ALL_MODULES = [*MODULES, CALLS]
FRAMES, PAGES, LIMIT = 700, 500, 400
"""More pages than the limit on frames: calls run short of memory too."""
A_PIECE = 100_000
VMCB_BYTES = 4096


def world_of(library: HostLibrary) -> CompiledWorld:
    """One VM on a machine whose memory is short; the VMCB is a page of zeros (CPL 0), ports take everything."""
    world = CompiledWorld(library, FRAMES, LIMIT, False)
    pointer = ctypes.c_void_p.in_dll(library._library, "krait_hook__current_cpu")
    pointer.value = ctypes.cast(library._library.tests_hostile_calls__the_cpu, ctypes.c_void_p).value
    library.hook("hypervisor.arch_x86.intrinsics.rdtsc", None)
    library.hook("hypervisor.arch_x86.intrinsics.inb", lambda port: 0xFF)
    library.hook("hypervisor.arch_x86.intrinsics.outb", lambda port, value: None)
    world.call("hypervisor.sched.policy.start", QUANTUM_NS, 1)
    world.stored("hypervisor.arch_x86.backend.chosen", "hypervisor.arch_x86.backend.Chosen").svm = True
    assert world.vm(PAGES, 1) == 0
    vmcb = ctypes.create_string_buffer(VMCB_BYTES)
    world.vms[0].name[0] = ord("f")
    world.vcpus[0].info_valid = False
    world.vcpus[0].state = 0
    world.vcpus[0].backend_hva = ctypes.addressof(vmcb)
    world.kept = vmcb  # type: ignore[attr-defined]  # its address stands in the vCPU
    return world


def fuzz(world: CompiledWorld, count: int, seed: int) -> str:
    """`count` calls; what they answered. AssertionError when something is wrong."""
    world.call("tests.hostile.chance.seed", seed)
    start = time.monotonic()
    for done in range(0, count, A_PIECE):
        world.call(f"{CALLS}.calls", world.vms[0], min(A_PIECE, count - done))
    tally = world.stored(f"{CALLS}.tally", f"{CALLS}.Tally")
    assert tally.wrong == 0, f"{tally.wrong} answers that do not exist, or a ledger that does not hold, from seed {seed}"
    assert tally.results + sum(tally.errors) + tally.ended > 0.9 * count
    errors = ", ".join(f"{number} error {index}" for index, number in enumerate(tally.errors) if number)
    return (f"{count} hypercalls from seed {seed} in {time.monotonic() - start:.0f} s: {tally.results} results, {errors}; "
            f"{tally.waits} waits, {tally.ended} ended the VM, 0 wrong")  # fmt: skip


def main(arguments: list[str]) -> None:
    if arguments[0] == "--in":
        print(f"sanitized: {fuzz(world_of(HostLibrary(Path(arguments[1]))), int(arguments[2]), int(arguments[3]))}")
        return
    with tempfile.TemporaryDirectory() as folder:
        print(sanitized.run(MODULE, ALL_MODULES, Path(folder), int(arguments[0]), 1), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
