"""Where things stand: the source tree this package belongs to, and what it writes."""

import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "out"
CACHE = ROOT / ".cache"
CONFIGS = Path(__file__).resolve().parent / "configs"


def image_dir(release: bool) -> Path:
    """The folder that holds the debug or the release image."""
    return OUT / ("release" if release else "debug")


def shown(path: Path) -> str:
    """`path` as a user would type it: relative to the working directory when it lies below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def runtime_dir() -> Path:
    """The folder for the sockets of running machines: below XDG_RUNTIME_DIR, else `out/run`."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(base) / "krait" if base else OUT / "run"
    path.mkdir(parents=True, exist_ok=True)
    return path


def socket_dir() -> tempfile.TemporaryDirectory[str]:
    """A private folder with a short name: a Unix socket's path has at most 107 bytes."""
    return tempfile.TemporaryDirectory(prefix="krait-", dir=os.environ.get("XDG_RUNTIME_DIR"))


@contextmanager
def short(path: Path) -> Iterator[str]:
    """Another name for `path`, short enough for a Unix socket however deep its folder lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@contextmanager
def lock(name: str) -> Iterator[None]:
    """One at a time over all processes that work in this tree: tests run several, and share `out` and `.cache`."""
    OUT.mkdir(exist_ok=True)
    with (OUT / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def claimed(base: Path) -> Iterator[Path]:
    """A folder that no other process works in meanwhile: `base`, or the same with a number behind it."""
    for number in itertools.count(1):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield folder
            return


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file so that another process sees the old one or the new one, never a part; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        file.write(data)
    Path(file.name).chmod(0o644)
    return Path(file.name).rename(path)
