"""Broken rings by the million, on a sanitized host library in a process of its own.

    PYTHONPATH=.:build python -m tests.virtio.broken_rings 22000000 > tests/virtio/long.txt
"""
from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from host_library import HostLibrary
from tests import sanitized
from tests.virtio.world import ALL_MODULES, COUNTS, FUZZ, compiled_run

MODULE = "tests.virtio.broken_rings"
A_PIECE = 100_000


def fuzz(folder: Path, count: int, seed: int) -> str:
    """Build the library in `folder`, run, and say what came of it; CalledProcessError when a sanitizer found something."""
    return sanitized.run(MODULE, ALL_MODULES, folder, count, seed)


def run(folder: Path, count: int, seed: int) -> None:
    """In the process with sanitizers."""
    world, vm, state = compiled_run(HostLibrary(folder), seed)
    for done in range(0, count, A_PIECE):
        world.call(f"{FUZZ}.rings", vm, min(A_PIECE, count - done))
    world.call(f"{FUZZ}.end")
    taken, broken, segments, wrong = (getattr(state, name) for name in COUNTS)
    print(f"{count} broken rings from seed {seed}, sanitized: {taken} chains of {segments} segments were taken, {broken} rings refused, "
          f"{wrong} should not have been taken")


def main(arguments: list[str]) -> None:
    if arguments[0] == "--in":
        run(Path(arguments[1]), int(arguments[2]), int(arguments[3]))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(fuzz(Path(folder), int(arguments[0]), 1), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
