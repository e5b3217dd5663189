"""The same history, interpreted and compiled: each answer, every frame and every ledger entry are equal."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hostlib
from host_library import HostLibrary
from hypervisor.addresses import PAGE_SIZE
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.memory import backing, frames, guest_memory, holes, nested
from hypervisor.paging import page_state, pressure, release
from tests.memory.compiled import FIRST, LEDGER, MEMORY, MODULES, PAGING, ROOT, CompiledWorld
from tests.memory.world import World, vcpu_of

EXAMPLES = 15 if "KRAIT_HOST_LIBRARY" in os.environ else 40
FRAMES = 420
PAGES = 600
GFN = st.one_of(st.integers(0, 40), st.integers(0, PAGES + 3), st.integers(0, (1 << 64) - 1))
COUNT = st.one_of(st.integers(0, 100), st.integers(0, (1 << 64) - 1))
GPA = st.one_of(st.integers(0, 8 * PAGE_SIZE), st.integers(0, PAGES * PAGE_SIZE + 9), st.integers(0, (1 << 64) - 1))
VALUE = st.integers(0, (1 << 64) - 1)

# Name, who it acts on, arguments: the rest of the test is the same for all.
CALLS: dict[str, tuple[str, Callable[..., Any], str, tuple[Any, ...]]] = {
    "back": (f"{MEMORY}.backing.back", backing.back, "vm", (GFN,)),
    "wait": (f"{MEMORY}.backing.back_for", backing.back_for, "both", (GFN,)),
    "release": (f"{PAGING}.release.mem_release", release.mem_release, "vm", (GFN, COUNT)),
    "populate": (f"{PAGING}.release.mem_populate", release.mem_populate, "vcpu", (GFN, COUNT)),
    "state": (f"{PAGING}.page_state.set_state", page_state.set_state, "vm", (GFN, COUNT, st.integers(0, 4))),
    "pin": (f"{MEMORY}.guest_memory.pin", guest_memory.pin, "vcpu", (GPA, st.one_of(st.integers(0, 9000), COUNT), st.booleans())),
    "ones": (f"{MEMORY}.holes.show_ones", holes.show_ones, "vm", (st.integers(PAGES, (1 << 36) - 1),)),
    "unmap": (f"{MEMORY}.nested.unmap", nested.unmap, "vm", (GFN,)),
    "lookup": (f"{MEMORY}.nested.lookup", nested.lookup, "vm", (st.integers(0, (1 << 64) - 1),)),
    "read64": (f"{MEMORY}.guest_memory.read_u64", guest_memory.read_u64, "vm", (GPA,)),
    "read16": (f"{MEMORY}.guest_memory.read_u16", guest_memory.read_u16, "vm", (GPA,)),
    "write64": (f"{MEMORY}.guest_memory.write_u64", guest_memory.write_u64, "vm", (GPA, VALUE)),
    "write8": (f"{MEMORY}.guest_memory.write_u8", guest_memory.write_u8, "vm", (GPA, st.integers(0, 255))),
    "relieve": (f"{PAGING}.pressure.relieve", pressure.relieve, "", ()),
    "returned": (f"{PAGING}.pressure.frames_returned", pressure.frames_returned, "", ()),
    "stop": (f"{PAGING}.pressure.stop_waiting", pressure.stop_waiting, "vcpu", ()),
    "alloc": (f"{MEMORY}.frames.alloc", frames.alloc, "", ()),
    "row": (f"{MEMORY}.frames.alloc_contiguous", frames.alloc_contiguous, "", (st.integers(0, 40),)),
    "entitled": (f"{PAGING}.pressure.entitlement", pressure.entitlement, "vm", ()),
}
STEP = st.one_of([st.tuples(st.just(name), st.integers(0, 2), st.tuples(*call[3])) for name, call in CALLS.items()]
                 + [st.tuples(st.just("back"), st.integers(0, 2), st.tuples(GFN))] * 4)


def chosen(on: str, vcpu: Any, vm: Any) -> list[Any]:
    """The arguments before those drawn."""
    return {"vm": [vm], "vcpu": [vcpu], "both": [vcpu, vm], "": []}[on]


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEP, max_size=60), intel=st.booleans(), limit=st.sampled_from([0, 120, 40]))
def test_same_history(library: HostLibrary, steps: list[tuple[str, int, tuple[Any, ...]]], intel: bool, limit: int) -> None:
    two = CompiledWorld(library, FRAMES, limit, intel)
    with closing(World(FRAMES, limit, intel, FIRST, LEDGER)) as one:
        machine.tsc, machine.tsc_step = 1000, 0
        for weight in (1, 2, 3):
            one.vm(PAGES, weight)
            assert two.vm(PAGES, weight) == 0
        for name, which, arguments in steps:
            compiled_name, call, on, _ = CALLS[name]
            first = chosen(on, vcpu_of(one.vms[which]), one.vms[which])
            second = chosen(on, two.vcpus[which], two.vms[which])
            assert call(*first, *arguments) == two.call(compiled_name, *second, *arguments), (name, arguments)
        assert two.memory() == (bytes(one.ram), bytes(one.entries))
        for vm, twin in zip(one.vms, two.vms):
            for field in ("nested_root", "nested_frames", "private_frames", "epoch", "pressure_frames", "holes_touched",
                          "unused_pages", "volatile_pages", "released_frames", "populated_frames"):
                assert getattr(vm, field) == getattr(twin, field), field
        assert two.call(f"{MEMORY}.ledger_check.check") == 0  # of the same bytes
        for vm, twin in zip(one.vms, two.vms):
            nested.destroy(vm)
            two.call(f"{MEMORY}.nested.destroy", twin)
        assert two.call(f"{MEMORY}.ledger_check.check") == 0
        assert two.memory()[1] == bytes(one.entries)


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is missing")
@pytest.mark.skipif("KRAIT_HOST_LIBRARY" in os.environ, reason="this is that run")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """The comparison again, on a library with address, undefined, overflow and conversion sanitizers."""
    hostlib.build(ROOT, MODULES, tmp_path, sanitize=True)
    runtime = subprocess.run(["clang", "-print-file-name=libclang_rt.asan-x86_64.so"], capture_output=True, text=True, check=True)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__], capture_output=True, text=True,
                          cwd=ROOT, timeout=900, env={**os.environ, "LD_PRELOAD": runtime.stdout.strip(), "PYTHONMALLOC": "malloc",
                                                      "ASAN_OPTIONS": "detect_leaks=0", "KRAIT_HOST_LIBRARY": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
