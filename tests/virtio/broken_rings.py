"""Broken rings, and a hostile driver of the console, by the million on a sanitized host library in a process of its own.

    PYTHONPATH=.:build python -m tests.virtio.broken_rings 22000000 > tests/virtio/long.txt
"""
from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from host_library import HostLibrary
from tests import sanitized
from tests.virtio.world import ALL_MODULES, COUNTS, DRIVERS, FUZZ, compiled_run

MODULE = "tests.virtio.broken_rings"
A_PIECE = 100_000
CONSOLE_SHARE = 10  # turns of the console's driver are longer than rings
SAID = {"ring_fuzz": "broken rings: {taken} chains of {segments} segments were taken, {broken} rings refused, {wrong} should not have been taken",
        "console_fuzz": "turns of a console's driver: {typed} bytes typed, {waits} waits for the host, {broken} times broken, {starts} starts, "
                        "{wrong} wrong"}


def fuzz(folder: Path, count: int, seed: int) -> str:
    """Build the library in `folder`, run, and say what came of it; CalledProcessError when a sanitizer found something."""
    return sanitized.run(MODULE, ALL_MODULES, folder, count, seed)


def run(library: HostLibrary, driver: str, count: int, seed: int) -> str:
    """In the process with sanitizers."""
    world, vm, state = compiled_run(library, driver, seed)
    for done in range(0, count, A_PIECE):
        world.call(f"{FUZZ}.{driver}.turns", vm, min(A_PIECE, count - done))
    world.call(f"{FUZZ}.{driver}.end", vm)
    said = SAID[driver].format(**{name: getattr(state, name) for name in COUNTS[driver]})
    return f"{count} {said} (seed {seed}, sanitized)"


def main(arguments: list[str]) -> None:
    if arguments[0] == "--in":
        library, count, seed = HostLibrary(Path(arguments[1])), int(arguments[2]), int(arguments[3])
        for driver in DRIVERS:
            print(run(library, driver, count if driver == "ring_fuzz" else count // CONSOLE_SHARE, seed))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(fuzz(Path(folder), int(arguments[0]), 1), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
