"""Progress on standard error: one line a stage with its time, and only to a terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO


@dataclass
class Progress:
    """Tells a person what is being done; silent when `stream` is no terminal."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Name a stage while it runs, and its elapsed time when it is done."""
        self._write(f"  {name} …")
        start = time.monotonic()
        try:
            yield
        except BaseException:
            self._write("\n")
            raise
        self._write(f"\r  {name}: {time.monotonic() - start:.1f} s\n")

    def note(self, text: str) -> None:
        """One line for a person."""
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        if self.stream.isatty():
            self.stream.write(text)
            self.stream.flush()
