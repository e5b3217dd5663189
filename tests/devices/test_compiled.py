"""The platform interpreted, compiled, and compiled with sanitizers: the same answers and the same bytes for any script."""
from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings

import hostlib
from host_library import HostLibrary
from hypervisor.devices import platform
from hypervisor.devices.platform import Platform
from tests.devices.scripts import STEPS, Step
from tests.three_lives.builds import ROOT
from tests.three_lives.mirror import same, twin
from tests.three_lives.test_scenario import run_sanitized

MODULE = "hypervisor.devices.platform"


@pytest.fixture(scope="module")
def compiled_devices(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    """The platform and all it is made of, as a host library; KRAIT_HOST_LIBRARY names a ready one."""
    ready = os.environ.get("KRAIT_HOST_LIBRARY")
    if ready is not None:
        return HostLibrary(Path(ready))
    out = tmp_path_factory.mktemp("devices")
    hostlib.build(ROOT, [MODULE], out, sanitize=False)
    return HostLibrary(out)


@given(STEPS)
@settings(max_examples=400, deadline=None)
def test_compiled_is_interpreted(compiled_devices: HostLibrary, steps: list[Step]) -> None:
    read, write, advance, receive, reset, deadline, pending, acknowledge = (
        compiled_devices.function(f"{MODULE}.{name}") for name in (
            "read", "write", "advance", "receive", "reset", "next_deadline", "interrupt_pending", "acknowledge"))
    p = Platform()
    compiled = twin(compiled_devices, p)
    platform.reset(p, 946728000, 0)
    reset(compiled, 946728000, 0)
    now = 0
    for kind, port, size, value, pause in steps:
        now += pause
        match kind:
            case "r":
                assert platform.read(p, port, size, now) == read(compiled, port, size, now)
            case "w":
                number = value & (1 << 8 * size) - 1
                platform.write(p, port, size, number, now)
                write(compiled, port, size, number, now)
            case "t":
                platform.receive(p, value & 0xFF)
                receive(compiled, value & 0xFF)
            case _:
                platform.advance(p, now)
                advance(compiled, now)
                assert platform.next_deadline(p) == deadline(compiled)
                assert platform.interrupt_pending(p) == pending(compiled)
                assert platform.acknowledge(p) == acknowledge(compiled)
        assert same(p, compiled)


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is missing")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """Address, undefined, overflow and implicit-conversion sanitizers over the same scripts."""
    hostlib.build(ROOT, [MODULE], tmp_path, sanitize=True)
    done = run_sanitized(tmp_path, ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/devices/test_compiled.py",
                                    "-k", "test_compiled_is_interpreted"])
    assert done.returncode == 0, done.stdout + done.stderr
