"""The tables of docs/cpu-policy.md, taken apart. Tests off target and on booted machines hold the code against them."""

import re
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "cpu-policy.md"


@dataclass(frozen=True)
class Msr:
    """How one MSR answers; `can` is `r`, `w` or `rw`."""

    vendor: str
    can: str
    how: str


@dataclass(frozen=True)
class Leaf:
    """One register of one CPUID leaf."""

    leaf: int
    register: str
    shown: int
    always: int


def rows(pattern: str) -> list[re.Match[str]]:
    """The document's table rows that match."""
    return list(re.finditer(pattern, DOCUMENT.read_text(), re.MULTILINE))


def msrs() -> dict[int, Msr]:
    """By number."""
    found: dict[int, Msr] = {}
    for row in rows(r"^\| ([0-9A-F]+)(?:-([0-9A-F]+))? \| [^|]+ \| (both|AMD|Intel) \| (r|w|rw) \| (passed|emulated|stored|constant) \|"):
        for msr in range(int(row[1], 16), int(row[2] or row[1], 16) + 1):
            assert msr not in found, f"{msr:x} is listed twice"
            found[msr] = Msr(row[3], row[4], row[5])
    assert found
    return found


def leaves() -> list[Leaf]:
    """In the document's order."""
    found = rows(r"^\| ([0-9A-F]+) \| (E[ABCD]X) \| ([0-9A-F]+) \| ([0-9A-F]+) \|")
    assert found
    return [Leaf(int(row[1], 16), row[2], int(row[3], 16), int(row[4], 16)) for row in found]


def control_registers() -> dict[str, int]:
    """The registers that have a mask."""
    return {row[1]: int(row[2], 16) for row in rows(r"^\| (CR4|EFER|XCR0) \| ([0-9A-F]+) \|")}
