"""The host library of the sample modules and of real devices, built once a session; KRAIT_HOST_LIBRARY names a ready one."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

import hostlib
from host_library import HostLibrary
from tests.three_lives.builds import MODULES, ROOT


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    """The compiled modules."""
    ready = os.environ.get("KRAIT_HOST_LIBRARY")
    if ready is not None:
        return HostLibrary(Path(ready))
    out = tmp_path_factory.mktemp("host")
    hostlib.build(ROOT, MODULES, out, sanitize=False)
    return HostLibrary(out)
