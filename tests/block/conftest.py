"""The block layer as a host library, built once a session; KRAIT_HOST_LIBRARY names a ready one (a sanitized one, say)."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

import hostlib
from host_library import HostLibrary
from tests.block.worlds import MODULES
from tests.memory.compiled import ROOT


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    """Compiled by gcc."""
    ready = os.environ.get("KRAIT_HOST_LIBRARY")
    if ready is not None:
        return HostLibrary(Path(ready))
    out = tmp_path_factory.mktemp("block")
    hostlib.build(ROOT, MODULES, out, sanitize=False)
    return HostLibrary(out)


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one with clang's sanitizers lies, for a process of its own."""
    out = tmp_path_factory.mktemp("sanitized")
    hostlib.build(ROOT, MODULES, out, sanitize=True)
    return out
