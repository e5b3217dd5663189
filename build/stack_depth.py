"""Worst-case stack of each entry point, from gcc's call graph after link-time optimisation (-fcallgraph-info=su)."""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_NODE = re.compile(r'node: \{ title: "([^"]+)" label: "([^"]*)"')
_EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')
_BYTES = re.compile(r"\\n(\d+) bytes \(([^)]*)\)")
RETURN_ADDRESS = 8


@dataclass
class Depth:
    """The deepest path from one function."""

    entry: str
    bytes: int
    path: list[str]


class StackError(Exception):
    """Recursion, or a frame whose size is not known."""


class CallGraph:
    """Functions with their frames, and who calls whom."""

    def __init__(self, texts: list[str]) -> None:
        self.frames: dict[str, int] = {}
        self.calls: dict[str, list[str]] = {}
        for text in texts:
            for title, label in _NODE.findall(text):
                if size := _BYTES.search(label):
                    if size[2] != "static":
                        raise StackError(f"{title}: frame is {size[2]}")
                    self.frames[title] = int(size[1]) + RETURN_ADDRESS
            for caller, callee in _EDGE.findall(text):
                self.calls.setdefault(caller, []).append(callee)
        self._deepest: dict[str, Depth] = {}

    def depth(self, name: str, above: tuple[str, ...] = ()) -> Depth:
        """The deepest path from a function; functions outside (assembly) count their return address only."""
        if name in above:
            raise StackError(f"recursion: {' -> '.join([*above[above.index(name):], name])}")
        if name not in self._deepest:
            own = self.frames.get(name, RETURN_ADDRESS)
            below = [self.depth(callee, (*above, name)) for callee in self.calls.get(name, [])]
            worst = max(below, key=lambda depth: depth.bytes, default=Depth("", 0, []))
            self._deepest[name] = Depth(name, own + worst.bytes, [name, *worst.path])
        return self._deepest[name]


def entries(graph: CallGraph, named: set[str]) -> list[Depth]:
    """The depth of every function that assembly names, deepest first."""
    return sorted((graph.depth(name) for name in graph.frames if name in named), key=lambda depth: -depth.bytes)


def read(directory: Path) -> CallGraph:
    """The call graph that gcc left in a directory."""
    return CallGraph([path.read_text() for path in sorted(directory.glob("*.ci"))])
