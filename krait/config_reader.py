"""Takes the tables of a configuration apart: values of the right kind and range, else a line that says what is wrong, and where."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from krait.outcome import ExitCode, KraitError
from krait.tomllines import Lines

SIZE = re.compile(r"^([1-9][0-9]*) ?(KiB|MiB|GiB)$")
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
NAME = re.compile(r"^[a-z0-9][a-z0-9_-]*$")
PAGE = 4096


class ConfigError(KraitError):
    """What is wrong in a configuration, one `file:line: reason` a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems), ExitCode.USAGE)


@dataclass
class Reader:
    """Takes one table apart, noting what is wrong with the line it stands on."""

    source: str
    lines: Lines
    problems: list[tuple[int, str]] = field(default_factory=list)

    def refuse(self, where: tuple[str | int, ...], reason: str) -> None:
        self.problems.append((self.lines.of(where), reason))

    def unknown(self, where: tuple[str | int, ...], table: dict[str, object], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                self.refuse((*where, key), f"unknown key '{key}'; known here: {', '.join(known)}")

    def text(self, where: tuple[str | int, ...], value: object, limit: int) -> str:
        """A string of ASCII without line ends, at most `limit` bytes with its terminating NUL."""
        if not isinstance(value, str):
            self.refuse(where, f"'{where[-1]}' must be a string, such as \"…\"")
            return ""
        if not value.isascii() or not value.isprintable():
            self.refuse(where, f"'{where[-1]}' must be printable ASCII")
        elif len(value) >= limit:
            self.refuse(where, f"'{where[-1]}' has {len(value)} bytes; at most {limit - 1} fit")
        return value

    def number(self, where: tuple[str | int, ...], value: object, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(where, f"'{where[-1]}' must be a whole number")
            return low
        if not low <= value <= high:
            self.refuse(where, f"'{where[-1]}' is {value}; it must be from {low} to {high}")
            return low
        return value

    def size(self, where: tuple[str | int, ...], value: object, minimum: int) -> int:
        found = SIZE.match(value) if isinstance(value, str) else None
        if found is None:
            self.refuse(where, f"'{where[-1]}' must be a size such as \"16MiB\" (KiB, MiB or GiB)")
            return minimum
        size = int(found[1]) * UNITS[found[2]]
        if size % PAGE:
            self.refuse(where, f"'{where[-1]}' must be a multiple of 4KiB")
        elif not minimum <= size < 1 << 40:
            self.refuse(where, f"'{where[-1]}' is {value}; it must be from {minimum >> 10}KiB to 1023GiB")
        return size

    def path(self, where: tuple[str | int, ...], value: str, folder: Path) -> Path | None:
        """A file name as the file gives it, whether or not there is such a file."""
        try:
            return folder / Path(value).expanduser()
        except RuntimeError:
            self.refuse(where, f"'{where[-1]}': there is no home folder for {value}")
            return None

    def file(self, where: tuple[str | int, ...], value: object, folder: Path) -> Path | None:
        if not isinstance(value, str):
            self.refuse(where, f"'{where[-1]}' must be a file name, such as \"vmlinuz\"")
            return None
        path = self.path(where, value, folder)
        if path is not None and not path.is_file():
            self.refuse(where, f"'{where[-1]}': there is no file {path}")
        return path

    def flag(self, where: tuple[str | int, ...], value: object) -> bool:
        if not isinstance(value, bool):
            self.refuse(where, f"'{where[-1]}' must be true or false")
        return value is True

    def tables(self, where: tuple[str | int, ...], value: object, most: int) -> list[dict[str, object]]:
        """An array of tables, at most `most`."""
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            self.refuse(where, f"'{where[-1]}' must be tables: [[{'.'.join(str(part) for part in where if isinstance(part, str))}]]")
            return []
        if len(value) > most:
            self.refuse((*where, most), f"at most {most} of '{where[-1]}' are possible")
        return [table for table in value if isinstance(table, dict)]
