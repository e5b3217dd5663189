"""The types of the subset, how they lie in memory, and how C writes them."""
from __future__ import annotations

import ast
from dataclasses import dataclass, field


class SubsetError(Exception):
    """A construct outside the subset: where, which rule, what to write instead."""

    def __init__(self, path: str, line: int, rule: str, instead: str = "") -> None:
        super().__init__(f"{path}:{line}: {rule}" + (f": {instead}" if instead else ""))
        self.path, self.line, self.rule = path, line, rule


@dataclass(frozen=True)
class Int:
    """A machine integer."""

    name: str
    bits: int
    signed: bool

    @property
    def low(self) -> int:
        """The least value."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The greatest value."""
        return (1 << (self.bits - self.signed)) - 1


U8, U16, U32, U64 = (Int(f"u{bits}", bits, False) for bits in (8, 16, 32, 64))
I32, I64 = Int("i32", 32, True), Int("i64", 64, True)
WIDTHS = {width.name: width for width in (U8, U16, U32, U64, I32, I64)}


@dataclass(frozen=True)
class Simple:
    """A type without parameters: literal, bool, text, none, null, noreturn, line (of an f-string)."""

    name: str


LITERAL = Simple("integer constant")
BOOL = Simple("bool")
TEXT = Simple("str")
NONE = Simple("None")
NULL = Simple("null pointer")
NORETURN = Simple("NoReturn")


@dataclass(frozen=True, eq=False)
class Enum:
    """An IntEnum or IntFlag: an u32 with names."""

    module: str
    name: str
    members: dict[str, int]
    flag: bool


@dataclass(frozen=True, eq=False)
class NewInt:
    """A NewType over an integer width."""

    module: str
    name: str
    base: Int


@dataclass(eq=False)
class Struct:
    """A struct or union; `fields` is filled in when its module has been declared."""

    module: str
    name: str
    packed: bool
    align: int
    union: bool
    node: ast.ClassDef
    fields: dict[str, Type] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    size: int = 0
    state: str = "declared"

    @property
    def c_name(self) -> str:
        """The tag of the C struct."""
        return f"{c_prefix(self.module)}__{self.name}"


@dataclass(frozen=True)
class Ref:
    """A reference to a struct; nullable if written `S | None`."""

    struct: Struct
    nullable: bool = False


@dataclass(frozen=True)
class Arr:
    """A fixed array. An element of struct type is `Ref(S)`, lying in the array by value; `Ref(S, True)` is a pointer."""

    element: Type
    count: int


Type = Int | Simple | Enum | NewInt | Ref | Arr

# Names that mean something to C, to gcc or to Cython's declaration files.
_TAKEN = frozenset("""auto char const default do double enum extern float goto inline int long register restrict short
    signed sizeof static struct switch typedef union unsigned void volatile asm typeof cdef cpdef ctypedef cimport include
    api public readonly packed fused by gil nogil DEF IF ELIF ELSE NULL cython bint likely unlikely""".split())


def c_name(name: str) -> str:
    """A name of the source as C and Cython may have it."""
    return name + "_" if name in _TAKEN else name


def c_prefix(module: str) -> str:
    """What the C symbols of a module start with."""
    return module.replace(".", "_")


def describe(kind: Type) -> str:
    """A type as the source writes it."""
    match kind:
        case Int() | Simple() | Enum() | NewInt():
            return kind.name
        case Ref():
            return kind.struct.name + (" | None" if kind.nullable else "")
        case Arr():
            return f"Annotated[list[{describe(kind.element)}], {kind.count}]"


def integer_of(kind: Type) -> Int | None:
    """The machine integer behind a type, None if it is no integer."""
    match kind:
        case Int():
            return kind
        case NewInt():
            return kind.base
        case Enum():
            return U32
    return None


def c_type(kind: Type) -> str:
    """The C (and Cython) type of a local, a parameter or a result."""
    if integer := integer_of(kind):
        return integer.name
    match kind:
        case Ref():
            return kind.struct.c_name + "_p"
        case Arr():
            return c_type(flat_element(kind)) + " *" if not is_struct_value(flat_element(kind)) else c_type(flat_element(kind))
    return {"bool": "krait_bool", "str": "krait_text", "None": "void", "NoReturn": "void"}[kind.name]


def is_struct_value(kind: Type) -> bool:
    """Whether a field or element of this type holds a struct by value."""
    return isinstance(kind, Ref) and not kind.nullable


def flat_element(kind: Type) -> Type:
    """The innermost element type of an array."""
    while isinstance(kind, Arr):
        kind = kind.element
    return kind


def declarator(kind: Type, name: str) -> str:
    """A C declaration of storage (field, global, element) of this type."""
    dimensions = ""
    while isinstance(kind, Arr):
        dimensions += f"[{kind.count}]"
        kind = kind.element
    base = kind.struct.c_name if isinstance(kind, Ref) and not kind.nullable else c_type(kind)
    return f"{base} {name}{dimensions}"


def size_align(kind: Type) -> tuple[int, int]:
    """Size and alignment in bytes of a field of this type."""
    if integer := integer_of(kind):
        return integer.bits // 8, integer.bits // 8
    match kind:
        case Arr():
            size, align = size_align(kind.element)
            return size * kind.count, align
        case Ref() if not kind.nullable:
            return kind.struct.size, kind.struct.align
    return (1, 1) if kind == BOOL else (8, 8)


def lay_out(struct: Struct) -> None:
    """Compute the offsets of a struct whose fields are known, as the x86-64 C ABI does."""
    offset = end = 0
    for name, kind in struct.fields.items():
        size, align = size_align(kind)
        align = 1 if struct.packed else align
        offset = 0 if struct.union else -(-offset // align) * align
        struct.offsets[name] = offset
        struct.align = max(struct.align, align)
        offset += size
        end = max(end, offset)
    struct.size = -(-end // struct.align) * struct.align
