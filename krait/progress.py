"""Progress on standard error: one line a stage with its time, and only to a terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Name a stage while it runs, and its elapsed time when it is done."""
    _write(f"  {name} …")
    start = time.monotonic()
    try:
        yield
    except BaseException:
        _write("\n")
        raise
    _write(f"\r  {name}: {time.monotonic() - start:.1f} s\n")


def note(text: str) -> None:
    """One line for a person."""
    _write(text + "\n")


def _write(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(text)
        sys.stderr.flush()
