"""What the operator console prints, on its way to standard output: plain, or coloured by guest on a terminal."""

import re
from collections.abc import Sequence
from typing import BinaryIO

PREFIX = re.compile(rb"\[([a-z0-9][a-z0-9_-]{0,30})\] ")
UNFINISHED_PREFIX = re.compile(rb"\[[a-z0-9_-]{0,31}\]?\Z")
COLOURS = (36, 33, 35, 32, 34, 91, 92, 94)
"""SGR foreground colours, one a guest in the order of the configuration."""

REDRAW = b"\r\x1b[K"
"""What the hypervisor prints to take its prompt away before a line (ECMA-48 EL)."""

BREAKS = re.compile(rb"(\n|\r\x1b\[K)")
UNFINISHED_BREAK = re.compile(rb"\r(\x1b\[?)?\Z")


class Screen:
    """Writes console bytes to `stream` as they come; `\\r\\n` becomes `\\n`.

    With `guests` named, the `[name]` in front of a guest's line gets that guest's colour. Only what cannot be told yet
    is held back, the beginning of a prefix or of a line end: a prompt shows at once. `only` lets through the lines of one
    guest, without their prefix.
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
        data = (self._held + data).replace(b"\r\n", b"\n")
        unfinished = UNFINISHED_BREAK.search(data)
        end = unfinished.start() if unfinished else len(data)
        self._held = data[end:]
        pieces = BREAKS.split(data[:end])
        out = b"".join(self._piece(piece, last=index == len(pieces) - 1) for index, piece in enumerate(pieces))
        self._stream.write(out)
        self._stream.flush()

    def finish(self) -> None:
        """The console has ended: let go of what was held back."""
        if self._only is None:
            self._stream.write(self._held)
            self._stream.flush()
        self._held = b""

    def _piece(self, piece: bytes, last: bool) -> bytes:
        """What to show for a break, or for a text without one."""
        if piece in (b"\n", REDRAW):
            self._at_start = True
            return piece if self._shown and (self._only is None or piece == b"\n") else b""
        if not piece or not self._at_start:
            return piece if self._shown else b""
        if last and UNFINISHED_PREFIX.match(piece):
            self._held = piece + self._held
            return b""
        self._at_start = False
        return self._decorated(piece)

    def _decorated(self, text: bytes) -> bytes:
        """The beginning of a line."""
        found = PREFIX.match(text)
        if self._only is not None:
            self._shown = found is not None and found[1] == self._only
            return text[found.end() :] if self._shown and found else b""
        if found is None or found[1] not in self._colours:
            return text
        return b"\x1b[%dm%s\x1b[0m%s" % (self._colours[found[1]], found[0], text[found.end() :])
