"""The test image, built once for the tests that look into it."""
from __future__ import annotations

from pathlib import Path

import pytest

import make_image

ROOT = Path(__file__).resolve().parents[2]
IMAGE = make_image.Image("tests.three_lives.metal.main", "tests/three_lives/metal", "hypervisor.ld", "three_lives.elf", {"": 16384})


@pytest.fixture(scope="session")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of the three lives' bare machine, with all its lines."""
    return make_image.build_image(ROOT, IMAGE, tmp_path_factory.mktemp("image"), "image", release=False)
