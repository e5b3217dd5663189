"""What the operator console prints, on its way to standard output: plain, or coloured by guest on a terminal."""

import re
from collections.abc import Sequence
from typing import BinaryIO

PREFIX = re.compile(rb"\[([a-z0-9][a-z0-9_-]{0,30})\] ")
LONGEST_PREFIX = 34
COLOURS = (36, 33, 35, 32, 34, 91, 92, 94)
"""SGR foreground colours, one a guest in the order of the configuration."""


class Screen:
    """Writes console bytes to `stream` as they come; `\\r\\n` becomes `\\n`.

    With `guests` named, the `[name]` in front of a guest's line gets that guest's colour. A line whose prefix is not
    whole yet is held back, nothing else is: a prompt shows at once. `only` lets through the lines of one guest, without
    their prefix.
    """

    def __init__(self, stream: BinaryIO, guests: Sequence[str] = (), only: str | None = None) -> None:
        self._stream = stream
        self._colours = {name.encode(): COLOURS[index % len(COLOURS)] for index, name in enumerate(guests)}
        self._only = only.encode() if only is not None else None
        self._held = b""
        self._at_start = True
        self._shown = only is None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the console."""
        out = b""
        for piece in data.replace(b"\r", b"").splitlines(keepends=True):
            out += self._piece(piece)
        self._stream.write(out)
        self._stream.flush()

    def finish(self) -> None:
        """The console has ended: let go of what was held back."""
        if self._held and self._only is None:
            self._stream.write(self._held)
            self._stream.flush()
        self._held = b""

    def _piece(self, piece: bytes) -> bytes:
        """What to show for `piece`, which lies within one line."""
        whole = self._held + piece
        self._held = b""
        if not self._at_start:
            self._at_start = piece.endswith(b"\n")
            return piece if self._shown else b""
        if whole.startswith(b"[") and b" " not in whole and b"\n" not in whole and len(whole) < LONGEST_PREFIX:
            self._held = whole
            return b""
        self._at_start = whole.endswith(b"\n")
        return self._decorated(whole)

    def _decorated(self, line: bytes) -> bytes:
        found = PREFIX.match(line)
        if self._only is not None:
            self._shown = found is not None and found[1] == self._only
            return line[found.end() :] if self._shown and found else b""
        if found is None or found[1] not in self._colours:
            return line
        return b"\x1b[%dm%s\x1b[0m%s" % (self._colours[found[1]], found[0], line[found.end() :])
