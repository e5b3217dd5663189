"""What the names of a module stand for, and the values that expressions have."""
from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

from subset_types import Arr, SubsetError, Type, c_prefix


@dataclass
class Value:
    """A typed expression: its text for Cython, and what is known of it."""

    text: str
    type: Type
    const: int | bool | str | None = None
    place: str = ""  # the struct or array itself, where `text` is its address
    low: int | None = None  # range, where known better than by the type
    high: int | None = None
    reads: bool = False  # depends on memory
    calls: bool = False  # runs a function
    direct: bool = True  # an array whose bounds gcc sees


@dataclass
class Constant:
    """`NAME: Final = expression`."""

    value: Value


@dataclass
class ConstTable:
    """A constant array in .rodata."""

    symbol: str
    type: Arr
    values: list[Value]
    line: int


@dataclass
class Global:
    """A zeroed struct instance or array in .bss."""

    symbol: str
    type: Type
    line: int


@dataclass
class Function:
    """A function: of the subset, or outside (C header, assembly) when `external`."""

    module: str
    name: str
    symbol: str
    params: list[tuple[str, Type]]
    result: Type
    node: ast.FunctionDef
    external: bool = False
    apart: bool = False
    calls: set[str] = field(default_factory=set)


@dataclass
class FunctionTable:
    """`TABLE: Final = (f, g, h)`; called through a generated switch."""

    symbol: str
    functions: list[Function]
    line: int


@dataclass
class Builtin:
    """A word of hypervisor.lang, typing, enum or of Python itself."""

    name: str


@dataclass
class TypeName:
    """A name of a type."""

    type: Type


@dataclass
class Local:
    """A local variable: its visible type, and the text that reads it."""

    type: Type
    storage: str
    text: str
    assignable: bool = True
    direct: bool = True
    low: int | None = None
    high: int | None = None
    form: str = "plain"
    const: int | None = None  # of a local that is only ever this constant


@dataclass
class Module:
    """One source file and what it defines or imports."""

    name: str
    path: Path
    relative: str
    tree: ast.Module
    lines: list[str]
    names: dict[str, Entity] = field(default_factory=dict)
    imports: list[Module] = field(default_factory=list)
    package: bool = False

    @property
    def prefix(self) -> str:
        """What its C symbols start with."""
        return c_prefix(self.name)

    @property
    def external(self) -> bool:
        """Whether its functions live in a C header or in assembly."""
        return self.name.rsplit(".", 1)[-1] == "intrinsics"

    def error(self, node: ast.AST | int, rule: str, instead: str = "") -> SubsetError:
        """A refusal at `node` (or line) of this module."""
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return SubsetError(self.relative, line, rule, instead)


Entity = (Constant | ConstTable | Global | Function | FunctionTable | Builtin | TypeName | Module)
