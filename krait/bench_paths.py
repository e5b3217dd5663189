"""`krait bench paths`: the longest path of the hypervisor between two returns to its run loop, in instructions.

A release image that counts them (`build/make_image.py --measure-paths`) boots guests that trade memory, lie in their hypercalls,
crash, reset themselves, and Debian's kernel beside them, under QEMU's `-icount shift=0`, where the TSC moves by one an instruction.
"""

import re
from dataclasses import dataclass

from krait import bench, config, images, paths, progress, result
from krait.machine import Machine, Media
from krait.outcome import KraitError

CONFIG = paths.CONFIGS / "bench-paths.toml"
LINE = re.compile(r"path: (exit|work) ([a-z/ ]+): longest ([0-9]+) of ([0-9]+)")
PROMISED = 50_000
"""Instructions; docs/numbers.md says it too."""


@dataclass(frozen=True)
class Path:
    """All paths of one kind: an exit's handler, or a piece of work."""

    kind: str
    longest: int
    count: int


def measure() -> list[Path]:
    """Build, boot, and read what the image counted: the longest first. KraitError when it printed nothing."""
    machine = Machine("qemu", icount=True)
    with paths.claimed(paths.OUT / "run" / "bench-paths") as folder:
        bundle = images.write_bundle(config.load(CONFIG), folder / "bundle.cpio", release=True, end_auto=True)
        with progress.stage("bench paths"):
            said = bench.console_of(machine, Media(images.measured_hypervisor(), bundle), folder, result.ORDERLY)
        (folder / "console.log").write_text(said)
    return read(said)


def read(console: str) -> list[Path]:
    """The `path:` lines of a console."""
    found = [Path(f"{group} {name}", int(longest), int(count)) for group, name, longest, count in LINE.findall(console)]
    if not found:
        raise KraitError(f"no path was printed; the console said:\n{console}")
    return sorted(found, key=lambda path: -path.longest)
