"""Packaging of the host side; everything else stands in pyproject.toml.

setuptools would write to `build/`, which is a source folder here, so its output goes below `out/`.
"""

from pathlib import Path

from setuptools import setup

OUTPUT = Path(__file__).resolve().parent / "out" / "setuptools"
OUTPUT.mkdir(parents=True, exist_ok=True)

setup(
    packages=["hypervisor", "krait"],
    options={"build": {"build_base": str(OUTPUT)}, "egg_info": {"egg_base": str(OUTPUT)}},
)
