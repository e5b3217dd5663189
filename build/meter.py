#!/usr/bin/env python3
"""Counts what is not Python: instructions of assembly, lines of C headers, inline assembly; and lines of Python per folder.

Comments and blank lines do not count; several instructions on a line count each; every `asm` in a header counts one for
each instruction of its template beside its own line.
"""
from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FREESTANDING = ("hypervisor", "guest_pv_drivers", "build")
FIXTURES = ("build/bare_machine", "krait", "tests")  # for tests and measurements only: listed, not in the total
PYTHON = ("hypervisor", "guest_pv_drivers", "build", "krait", "tests", "qemu_tests")
AIM = 500


def without_comments(text: str) -> list[str]:
    """The lines of C or assembly that hold something."""
    text = re.sub(r"/\*.*?\*/", lambda match: "\n" * match[0].count("\n"), text, flags=re.S)
    lines = (re.sub(r"(^|\s)(#(?!\s*(define|include|if|ifdef|ifndef|else|elif|endif|undef|pragma)\b)|//).*$", "", line)
             for line in text.splitlines())
    return [line for line in lines if line.strip()]


def assembly(path: Path) -> int:
    """Statements of an assembly file."""
    return sum(len([part for part in line.split(";") if part.strip()]) for line in without_comments(path.read_text()))


def header(path: Path) -> int:
    """Lines of a C header, and the further instructions of its inline assembly."""
    lines = without_comments(path.read_text())
    templates = re.findall(r'\basm(?:__)?\s+(?:volatile|__volatile__)?\s*\(\s*((?:"[^"]*"\s*)+)', "\n".join(lines))
    return len(lines) + sum(str(template).count(";") + str(template).count("\\n") for template in templates)


def python(path: Path) -> int:
    """Lines of Python with a token that is no comment, docstrings left out."""
    counted: set[int] = set()
    last = tokenize.NEWLINE
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.ENCODING)
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        docstring = token.type == tokenize.STRING and last in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.NL)
        if token.type not in skipped and not docstring:
            counted.update(range(token.start[0], token.end[0] + 1))
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            last = token.type
    return len(counted)


def native(folders: tuple[str, ...]) -> dict[str, int]:
    """Assembly files and C headers below some folders."""
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".S", ".h"):
                found[str(path.relative_to(ROOT))] = assembly(path) if path.suffix == ".S" else header(path)
    return found


def measure() -> dict[str, dict[str, int]]:
    """All counts: native files one by one, Python by folder."""
    fixtures = native(FIXTURES)
    counted = {name: lines for name, lines in native(FREESTANDING).items() if name not in fixtures}
    lines: dict[str, int] = {}
    for folder in PYTHON:
        for path in (ROOT / folder).rglob("*.py"):
            name = str(path.parent.relative_to(ROOT))
            lines[name] = lines.get(name, 0) + python(path)
    return {"native": counted, "fixtures": fixtures, "python": dict(sorted(lines.items()))}


def main() -> int:
    """The command line; the exit code says whether the aim is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    counts = measure()
    total = sum(counts["native"].values())
    if arguments.json:
        print(json.dumps({**counts, "native_total": total, "aim": AIM}))
    else:
        for title, part in counts.items():
            print(f"{title}:")
            for name, lines in part.items():
                print(f"  {name:<48}{lines:6}")
        print(f"assembly and C together: {total} (aim: under {AIM}); Python: {sum(counts['python'].values())}")
    return 0 if total < AIM else 1


if __name__ == "__main__":
    sys.exit(main())
