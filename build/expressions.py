"""Types every expression and writes it for Cython: arithmetic in 64 bits, constants folded, Python's order of evaluation."""
from __future__ import annotations

import ast

from entities import Builtin, Constant, ConstTable, Entity, Function, FunctionTable, Global, Module, TypeName, Value
from subset_types import (BOOL, LITERAL, NULL, TEXT, U32, U64, Arr, Enum, Ref, Struct, SubsetError, Type, c_name, describe, integer_of,
                          is_struct_value)

MASK = (1 << 64) - 1
BUILTINS = frozenset({"len", "range", "min", "max", "ord", "bool", "int", "enumerate", "zip", "print", "abs", "str", "isinstance"})


class Uses:
    """What a module's functions use, for its .pxd: fields by struct, functions, storage, tables."""

    def __init__(self) -> None:
        self.fields: dict[Struct, set[str]] = {}
        self.functions: dict[str, Function] = {}
        self.storage: dict[str, ConstTable | Global] = {}
        self.tables: dict[str, FunctionTable] = {}
        self.links: set[str] = set()

    def struct(self, struct: Struct, name: str = "") -> None:
        """Note that the struct (and its field `name`) is used."""
        fields = self.fields.setdefault(struct, set())
        if name:
            fields.add(name)


def integer_text(value: int) -> str:
    """An integer constant for Cython: what does not fit C's int is cast."""
    if 0 <= value < 1 << 31:
        return str(value)
    if -(1 << 31) < value < 0:
        return f"({value})"
    if value < 0:
        return f"cython.cast(i64, cython.cast(u64, {value & MASK}))"
    return f"cython.cast(u64, {value})"


def constant(value: int | bool | str, kind: Type) -> Value:
    """The value of a constant of type `kind`."""
    if isinstance(value, str):
        return Value(f"b{value!r}" if '"' not in value else "b" + repr(value), TEXT, value)
    if kind == BOOL:
        return Value("1" if value else "0", BOOL, bool(value))
    return Value(integer_text(value), kind, value)


def bounds(value: Value) -> tuple[int, int]:
    """The range that an integer value lies in."""
    if isinstance(value.const, int):
        return value.const, value.const
    integer = integer_of(value.type) or U64
    return (integer.low if value.low is None else value.low), (integer.high if value.high is None else value.high)


class Expressions:
    """Expressions of one module; functions.py adds locals and temporaries."""

    def __init__(self, module: Module, uses: Uses) -> None:
        self.module = module
        self.uses = uses

    # -- names ---------------------------------------------------------------------------------------------------------
    def local(self, name: str) -> Value | None:
        """A local variable, where there are some."""
        return None

    def hoist(self, value: Value) -> Value:
        """Evaluate a value into a temporary before what follows it."""
        raise SubsetError(self.module.relative, 0, "not a constant expression")

    def call(self, node: ast.Call) -> Value:
        """A call; see calls.py."""
        raise NotImplementedError

    def refuse(self, node: ast.AST, rule: str, instead: str = "") -> SubsetError:
        """The refusal of a construct."""
        return self.module.error(node, rule, instead)

    def entity(self, node: ast.expr) -> Entity | None:
        """What a name, or a name of a module, stands for; None if it is a local or no such name."""
        if isinstance(node, ast.Name):
            if self.local(node.id) is not None:
                return None
            found = self.module.names.get(node.id)
            return Builtin(node.id) if found is None and node.id in BUILTINS else found
        if isinstance(node, ast.Attribute):
            base = self.entity(node.value)
            if isinstance(base, Module):
                found = base.names.get(node.attr)
                if found is None:
                    raise self.refuse(node, f"{base.name} has no {node.attr}")
                return found
        return None

    def value(self, node: ast.expr) -> Value:
        """The typed value of an expression."""
        method = getattr(self, f"_{type(node).__name__}", None)
        if method is None:
            raise self.refuse(node, f"{type(node).__name__} is not in the subset", "see docs/subset.md")
        result: Value = method(node)
        return result

    def _Constant(self, node: ast.Constant) -> Value:
        if isinstance(node.value, bool):
            return constant(node.value, BOOL)
        if isinstance(node.value, int):
            return constant(node.value, LITERAL)
        if isinstance(node.value, str):
            if not node.value.isascii():
                raise self.refuse(node, "text is ASCII", "escape or spell it otherwise")
            return constant(node.value, TEXT)
        if node.value is None:
            return Value("cython.NULL", NULL)
        raise self.refuse(node, f"no constant of type {type(node.value).__name__}", "integers, bool, ASCII str, None")

    def _Name(self, node: ast.Name) -> Value:
        found = self.local(node.id)
        return found if found is not None else self.of_entity(node, self.entity(node), node.id)

    def of_entity(self, node: ast.AST, entity: Entity | None, name: str) -> Value:
        """The value that a global name has."""
        match entity:
            case Constant(value):
                return value
            case ConstTable(symbol, kind) | Global(symbol, kind):
                self.uses.storage[symbol] = entity
                if isinstance(kind, Ref):
                    return Value(f"cython.address({symbol})", kind, place=symbol)
                return Value(symbol, kind, place=symbol)
            case None:
                raise self.refuse(node, f"unknown name {name}", "define, import or assign it first")
        raise self.refuse(node, f"{name} is no value", "functions, types and modules are only called or named")

    def _Attribute(self, node: ast.Attribute) -> Value:
        base = self.entity(node.value)
        if isinstance(base, Module):
            return self.of_entity(node, self.entity(node), node.attr)
        if isinstance(base, TypeName) and isinstance(base.type, Enum):
            if node.attr not in base.type.members:
                raise self.refuse(node, f"{base.type.name} has no member {node.attr}")
            return constant(base.type.members[node.attr], base.type)
        owner = self.value(node.value)
        if isinstance(owner.type, Enum) and node.attr == "value":
            return Value(owner.text, U32, owner.const, reads=owner.reads, calls=owner.calls)
        if not isinstance(owner.type, Ref):
            raise self.refuse(node, f"{describe(owner.type)} has no fields")
        struct = owner.type.struct
        if node.attr not in struct.fields:
            raise self.refuse(node, f"{struct.name} has no field {node.attr}")
        self.uses.struct(struct, node.attr)
        return self.stored(f"{owner.place or owner.text}.{c_name(node.attr)}", struct.fields[node.attr], owner)

    def stored(self, place: str, kind: Type, owner: Value) -> Value:
        """The value of a field or an element at `place`, inside `owner`."""
        if isinstance(kind, Ref):
            self.uses.struct(kind.struct)
        if is_struct_value(kind):
            return Value(f"cython.address({place})", kind, place=place, reads=owner.reads, calls=owner.calls)
        if isinstance(kind, Arr):
            return Value(place, kind, place=place, reads=owner.reads, calls=owner.calls)
        return Value(place, kind, place=place, reads=True, calls=owner.calls)

    def _Subscript(self, node: ast.Subscript) -> Value:
        if isinstance(self.entity(node.value), FunctionTable):
            raise self.refuse(node, "an entry of a table of functions is only called", "TABLE[i](args)")
        owner = self.value(node.value)
        if not isinstance(owner.type, Arr):
            instead = "char_at(text, index)" if owner.type == TEXT else "only fixed arrays are indexed"
            raise self.refuse(node, f"{describe(owner.type)} has no index", instead)
        index = self.value(node.slice)
        if integer_of(index.type) is None and index.type != LITERAL:
            raise self.refuse(node, "an index is an integer")
        owner, index = self.sequence([owner, index])
        count, element = owner.type.count, owner.type.element  # type: ignore[union-attr]
        if isinstance(index.const, int) and not 0 <= index.const < count:
            raise self.refuse(node, f"index {index.const} is outside 0..{count - 1}", "negative indexes do not exist")
        both = Value("", element, reads=owner.reads or index.reads, calls=owner.calls or index.calls)
        text = index.text
        # gcc checks the bounds of what it loads or stores; taking an address it allows the place behind the last element.
        if (not owner.direct or is_struct_value(element) or isinstance(element, Arr)) and not isinstance(index.const, int):
            text = f"krait_index({self.wide(index, (integer_of(index.type) or U64).signed)}, {count})"
        if isinstance(element, Arr) and not owner.direct:
            return Value(f"({owner.text} + {text} * {self._elements(element)})", element, reads=both.reads, calls=both.calls,
                         direct=False)
        return self.stored(f"{owner.text}[{text}]", element, both)

    def _elements(self, kind: Type) -> int:
        return kind.count * self._elements(kind.element) if isinstance(kind, Arr) else 1

    def wide(self, value: Value, signed: bool) -> str:
        """The text of an integer widened to 64 bits."""
        name = "i64" if signed else "u64"
        if isinstance(value.const, int):
            if signed and value.const >= 1 << 31:
                return f"cython.cast(i64, {value.const})"
            return integer_text(value.const if signed else value.const & MASK)
        integer = integer_of(value.type)
        return value.text if integer is not None and integer.name == name else f"cython.cast({name}, {value.text})"

    # -- order of evaluation ---------------------------------------------------------------------------------------------
    def sequence(self, values: list[Value]) -> list[Value]:
        """Make C evaluate the values from left to right wherever it could be seen."""
        result = []
        for index, value in enumerate(values):
            rest = values[index + 1:]
            seen = value.calls or value.reads
            if value.const is None and seen and any(later.calls or (value.calls and later.reads) for later in rest):
                value = self.hoist(value)
            result.append(value)
        return result
