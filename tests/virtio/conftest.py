"""The rings as a host library, built once a session; KRAIT_HOST_LIBRARY names a ready one (a sanitized one, say)."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

import hostlib
from host_library import HostLibrary
from tests.memory.compiled import ROOT
from tests.virtio.world import ALL_MODULES


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    """Compiled by gcc."""
    ready = os.environ.get("KRAIT_HOST_LIBRARY")
    if ready is not None:
        return HostLibrary(Path(ready))
    out = tmp_path_factory.mktemp("virtio")
    hostlib.build(ROOT, ALL_MODULES, out, sanitize=False)
    return HostLibrary(out)
