"""Host libraries of the sample modules, built once a session; KRAIT_HOST_LIBRARY names a ready one."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

import hostlib
from host_library import HostLibrary
from tests.three_lives.builds import ROOT, SAMPLE


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    """The compiled sample."""
    ready = os.environ.get("KRAIT_HOST_LIBRARY")
    if ready is not None:
        return HostLibrary(Path(ready))
    out = tmp_path_factory.mktemp("host")
    hostlib.build(ROOT, SAMPLE, out, sanitize=False)
    return HostLibrary(out)
