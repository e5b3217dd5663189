"""`krait bench paths`: the longest path of the hypervisor between two returns to its run loop, in instructions.

A release image that counts them (`build/make_image.py --measure-paths`) boots guests that trade memory, lie in their hypercalls,
crash, reset themselves, and Debian's kernel beside them, under QEMU's `-icount shift=0`, where the TSC moves by one an instruction;
and then a crowd of guests that sleep and wake, some of them with limits.
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
CROWD = 300
LIMITED = {"cap = 5": 4, "reserve = 1": 4, "cpus = [0]": 4, "pins = [0]": 4}
"""How many of the crowd have this limit."""


@dataclass(frozen=True)
class Path:
    """All paths of one kind: an exit's handler, or a piece of work."""

    kind: str
    longest: int
    count: int


def measure() -> list[Path]:
    """Build, boot, and read what the images counted: the longest first. KraitError when one printed nothing."""
    found: dict[str, Path] = {}
    for name, settings in (("guests", config.load(CONFIG)), ("crowd", config.parse(_crowd(), "crowd", CONFIG.parent))):
        for path in _run(name, settings):
            known = found.get(path.kind, Path(path.kind, 0, 0))
            found[path.kind] = Path(path.kind, max(path.longest, known.longest), path.count + known.count)
    return sorted(found.values(), key=lambda path: -path.longest)


def _run(name: str, settings: config.Settings) -> list[Path]:
    with paths.claimed(paths.OUT / "run" / "bench-paths") as folder:
        bundle = images.write_bundle(settings, folder / "bundle.cpio", release=True, end_auto=True)
        with progress.stage(f"bench paths, {name}"):
            said = bench.console_of(Machine("qemu", icount=True), Media(images.measured_hypervisor(), bundle), folder, result.ORDERLY)
        (folder / "console.log").write_text(said)
    return read(said)


def _crowd() -> str:
    """Guests that sleep for ten milliseconds at a time, and one of many vCPUs that uses up its cap, as TOML."""
    limits = [line for line, count in LIMITED.items() for _ in range(count)]
    tables = []
    for number in range(CROWD):
        limit = limits[number] if number < len(limits) else ""
        tables.append(f'[[vm]]\nname = "g{number}"\nkind = "pv"\nmemory = "256KiB"\nworkload = "idle"\ncmdline = "ms=300 step=10"\n{limit}\n')
    tables.append(f'[[vm]]\nname = "horde"\nkind = "pv"\nmemory = "4MiB"\nvcpus = 64\nworkload = "spin-all"\ncmdline = "ms=300"\ncap = 30\n')
    return "\n".join(tables)


def read(console: str) -> list[Path]:
    """The `path:` lines of a console."""
    found = [Path(f"{group} {name}", int(longest), int(count)) for group, name, longest, count in LINE.findall(console)]
    if not found:
        raise KraitError(f"no path was printed; the console said:\n{console}")
    return sorted(found, key=lambda path: -path.longest)
