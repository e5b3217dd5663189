"""A module of tests in a process of its own, over a host library with clang's sanitizers."""

import os
import subprocess
import sys
from pathlib import Path

import hostlib
from tests.memory.compiled import ROOT


def run(module: str, modules: list[str], folder: Path, *arguments: int) -> str:
    """Build `modules` in `folder`, run `python -m MODULE --in FOLDER ARGUMENTS`; what it printed. CalledProcessError when a sanitizer
    found something."""
    hostlib.build(ROOT, modules, folder, sanitize=True)
    runtime = subprocess.run(["clang", "-print-file-name=libclang_rt.asan-x86_64.so"], capture_output=True, text=True, check=True)
    environment = {**os.environ, "LD_PRELOAD": runtime.stdout.strip(), "PYTHONMALLOC": "malloc", "ASAN_OPTIONS": "detect_leaks=0",
                   "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'build'}"}
    done = subprocess.run([sys.executable, "-m", module, "--in", str(folder), *map(str, arguments)], cwd=ROOT, env=environment,
                          stdout=subprocess.PIPE, text=True, check=True)  # fmt: skip
    return done.stdout
