"""The fixture `stock`, a VM with a platform; and the decoder as a host library."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

import hostlib
from tests.linux.stock import stock
from tests.three_lives.builds import ROOT

__all__ = ["compiled_decoder", "stock"]


@pytest.fixture(scope="session")
def compiled_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the library is; KRAIT_HOST_LIBRARY names a ready one."""
    ready = os.environ.get("KRAIT_HOST_LIBRARY")
    if ready is not None:
        return Path(ready)
    out = tmp_path_factory.mktemp("decoder")
    hostlib.build(ROOT, ["tests.decoder.batch"], out, sanitize=False)
    return out
