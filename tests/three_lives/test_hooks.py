"""Intrinsics of the host library: memory for real, privileged ones through hooks or refused by name."""
from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

import hostlib
from host_library import HostLibrary
from tests.three_lives.builds import ROOT

MODULE = "tests.three_lives.sample.clockwork"
INTRINSICS = "hypervisor.arch_x86.intrinsics"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with intrinsics in it."""
    out = tmp_path_factory.mktemp("hooks")
    hostlib.build(ROOT, [MODULE], out, sanitize=False)
    return out


def test_memory_is_real(directory: Path) -> None:
    number = ctypes.c_uint32(41)
    assert HostLibrary(directory).function(f"{MODULE}.bump")(ctypes.addressof(number)) == 42
    assert number.value == 42


def test_ports_go_to_hooks(directory: Path) -> None:
    library = HostLibrary(directory)
    written: list[tuple[int, int]] = []
    library.hook(f"{INTRINSICS}.inb", lambda port: port + 3)
    library.hook(f"{INTRINSICS}.outb", lambda port, value: written.append((port, value)))
    assert library.function(f"{MODULE}.echo")(0x60) == 0x63
    assert written == [(0x61, 0x64)]


def test_without_a_hook_the_intrinsic_is_named(directory: Path) -> None:
    program = ("import sys, pathlib; sys.path.insert(0, 'build'); from host_library import HostLibrary\n"
               f"HostLibrary(pathlib.Path({str(directory)!r})).function('{MODULE}.echo')(1)")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "intrinsic inb has no hook" in done.stderr
