"""Which line of a TOML text each table and key stands on; tomllib tells values only."""

import re
from dataclasses import dataclass

Key = tuple[str | int, ...]

HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
ASSIGNMENT = re.compile(r"""^\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=(.*)$""")
PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*\.?""")
TOKEN = re.compile(r'''"""|\'\'\'|"(?:\\.|[^"\\])*"|'[^']*'|[\[\]{}]|#.*$''')


@dataclass(frozen=True)
class Lines:
    """Line numbers (from 1) by path: ("vm", 0, "memory") is `memory` of the first `[[vm]]`."""

    numbers: dict[Key, int]

    def of(self, where: Key) -> int:
        """The line of `where`, or of the nearest table around it; 1 when nothing of it is written."""
        while where:
            if where in self.numbers:
                return self.numbers[where]
            where = where[:-1]
        return 1


def find_lines(text: str) -> Lines:
    """Scan a text that tomllib accepts."""
    numbers: dict[Key, int] = {}
    table: Key = ()
    counts: dict[Key, int] = {}
    open_brackets, open_string = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not open_brackets and not open_string:
            if header := HEADER.match(line):
                table = _within(_parts(header[2]), counts)
                if header[1] == "[[":
                    index = counts.get(table, 0)
                    counts[table] = index + 1
                    numbers.setdefault(table, number)
                    table = (*table, index)
                numbers.setdefault(table, number)
                continue
            if assignment := ASSIGNMENT.match(line):
                numbers.setdefault((*table, *_parts(assignment[1])), number)
                line = assignment[2]
        open_brackets, open_string = _scan(line, open_brackets, open_string)
    return Lines(numbers)


def _within(table: Key, counts: dict[Key, int]) -> Key:
    """`table` with the number of the latest `[[...]]` behind each of its outer parts that is one: ("vm", 0, "disk")."""
    path: Key = ()
    for place, part in enumerate(table):
        path = (*path, part)
        if path in counts and place + 1 < len(table):
            path = (*path, counts[path] - 1)
    return path


def _parts(dotted: str) -> Key:
    return tuple(next(part for part in found if part) for found in PART.findall(dotted))


def _scan(line: str, brackets: int, string: str) -> tuple[int, str]:
    """How many brackets, and which multi-line string, are open behind `line`."""
    position = 0
    while position < len(line):
        if string:
            end = line.find(string, position)
            if end < 0:
                return brackets, string
            position, string = end + 3, ""
            continue
        found = TOKEN.search(line, position)
        if found is None:
            break
        position = found.end()
        match found[0]:
            case '"""' | "'''":
                string = found[0]
            case "[" | "{":
                brackets += 1
            case "]" | "}":
                brackets -= 1
    return brackets, string
