"""Types every expression and writes it for Cython: arithmetic in 64 bits, constants folded, Python's order of evaluation."""
from __future__ import annotations

import ast
import operator
from typing import Callable

from entities import (Builtin, Constant, ConstTable, Entity, Function, FunctionTable, Global, Module, TypeName, Value)
from subset_types import (BOOL, I64, LITERAL, NULL, TEXT, U32, U64, Arr, Enum, Int, NewInt, Ref, Struct, SubsetError, Type,
                          c_name, c_type, describe, integer_of, is_struct_value)

_MASK = (1 << 64) - 1
_FOLD: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.LShift: operator.lshift, ast.RShift: operator.rshift, ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.Pow: operator.pow}
SIGNS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%",
                                        ast.LShift: "<<", ast.RShift: ">>", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^"}
_COMPARE: dict[type[ast.cmpop], tuple[str, Callable[[object, object], bool]]] = {
    ast.Eq: ("==", operator.eq), ast.NotEq: ("!=", operator.ne), ast.Lt: ("<", operator.lt),  # type: ignore[dict-item]
    ast.LtE: ("<=", operator.le), ast.Gt: (">", operator.gt), ast.GtE: (">=", operator.ge)}  # type: ignore[dict-item]
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
        return f"cython.cast(i64, cython.cast(u64, {value & _MASK}))"
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
        if not owner.direct and not isinstance(index.const, int):
            text = f"krait_index({self.wide(index, (integer_of(index.type) or U64).signed)}, {count})"
        if isinstance(element, Arr) and not owner.direct:
            return Value(f"({owner.text} + {text} * {self._elements(element)})", element, reads=both.reads, calls=both.calls,
                         direct=False)
        return self.stored(f"{owner.text}[{text}]", element, both)

    def _elements(self, kind: Type) -> int:
        return kind.count * self._elements(kind.element) if isinstance(kind, Arr) else 1

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

    # -- arithmetic ------------------------------------------------------------------------------------------------------
    def wide(self, value: Value, signed: bool) -> str:
        """The text of an integer widened to 64 bits."""
        name = "i64" if signed else "u64"
        if isinstance(value.const, int):
            if signed and value.const >= 1 << 31:
                return f"cython.cast(i64, {value.const})"
            return integer_text(value.const if signed else value.const & _MASK)
        integer = integer_of(value.type)
        return value.text if integer is not None and integer.name == name else f"cython.cast({name}, {value.text})"

    def signedness(self, node: ast.AST, values: list[Value]) -> bool:
        """Whether the operands are signed; mixed ones are refused."""
        signs = set()
        for value in values:
            if integer := integer_of(value.type):
                if value.const is None or isinstance(value.type, (NewInt, Enum)):
                    signs.add(integer.signed)
            elif value.type != LITERAL:
                raise self.refuse(node, f"{describe(value.type)} is no number", "cast it: u32(flag), address(struct)")
        if len(signs) > 1:
            raise self.refuse(node, "signed and unsigned operands are mixed", "cast one: i64(x), u64(y)")
        signed = signs.pop() if signs else any(isinstance(value.const, int) and value.const < 0 for value in values)
        for value in values:
            low, high = bounds(value) if value.type == LITERAL or value.const is not None else (0, 0)
            if not (-(1 << 63) <= low and high < 1 << 63 if signed else 0 <= low and high <= _MASK):
                raise self.refuse(node, f"{low} does not fit {'i64' if signed else 'u64'}")
        return signed

    def _BinOp(self, node: ast.BinOp) -> Value:
        if isinstance(node.op, ast.BitAnd):
            return self._and(node)
        return self.binary(node, self.value(node.left), self.value(node.right))

    def binary(self, node: ast.BinOp, left: Value, right: Value) -> Value:
        """`left op right` for typed operands."""
        if left.type == TEXT or right.type == TEXT:
            raise self.refuse(node, "texts have no operators", "pass an f-string to a parameter of type str")
        if isinstance(left.const, int) and isinstance(right.const, int):
            return self._folded(node, left, right)
        if type(node.op) not in SIGNS:
            instead = "// on unsigned operands" if isinstance(node.op, ast.Div) else "see docs/subset.md"
            raise self.refuse(node, f"operator {type(node.op).__name__} is not in the subset", instead)
        if isinstance(node.op, (ast.LShift, ast.RShift)):
            return self._shift(node, left, right)
        signed = self.signedness(node, [left, right])
        if isinstance(node.op, (ast.FloorDiv, ast.Mod)):
            if signed:
                raise self.refuse(node, "// and % are unsigned only", "u64(x) // u64(y) for what is not negative")
            if right.const == 0:
                raise self.refuse(node, "division by zero")
        left, right = self.sequence([left, right])
        text = f"({self.wide(left, signed)} {SIGNS[type(node.op)]} {self.wide(right, signed)})"
        kind: Type = I64 if signed else U64
        if isinstance(left.type, Enum) and left.type == right.type and left.type.flag:
            kind = left.type
        result = Value(text, kind, reads=left.reads or right.reads, calls=left.calls or right.calls)
        return self._ranged(node.op, result, left, right)

    def _ranged(self, op: ast.operator, result: Value, left: Value, right: Value) -> Value:
        (low, high), (start, end) = bounds(left), bounds(right)
        match op:
            case ast.Add():
                low, high = low + start, high + end
            case ast.Sub():
                low, high = low - end, high - start
            case ast.Mult() if low >= 0 and start >= 0:
                low, high = low * start, high * end
            case ast.Mod():
                low, high = 0, max(end - 1, 0)
            case ast.FloorDiv():
                low, high = 0, high // max(start, 1)
            case ast.BitAnd() if low >= 0 and start >= 0:
                low, high = 0, min(high, end)
            case ast.BitOr() | ast.BitXor() if low >= 0 and start >= 0:
                low, high = 0, (1 << max(high.bit_length(), end.bit_length())) - 1
            case ast.RShift() if low >= 0:
                low, high = low >> min(end, 64), high >> max(start, 0)
            case ast.LShift() if low >= 0 and end < 64:
                low, high = low << max(start, 0), high << end
            case _:
                return result
        integer = integer_of(result.type) or U64
        if integer.low <= low and high <= integer.high:
            result.low, result.high = low, high
        return result

    def _folded(self, node: ast.BinOp, left: Value, right: Value) -> Value:
        assert isinstance(left.const, int) and isinstance(right.const, int)
        if type(node.op) not in _FOLD or left.type == BOOL or right.type == BOOL:
            raise self.refuse(node, f"operator {type(node.op).__name__} is not in the subset", "see docs/subset.md")
        try:
            result = _FOLD[type(node.op)](left.const, right.const)
        except (ZeroDivisionError, ValueError) as error:
            raise self.refuse(node, f"constant expression: {error}") from error
        kind: Type = LITERAL
        if isinstance(left.type, NewInt) or isinstance(right.type, NewInt):
            kind = U64
        if isinstance(left.type, Enum) and left.type == right.type and left.type.flag:
            kind = left.type
        return constant(result, kind)

    def _shift(self, node: ast.BinOp, left: Value, right: Value) -> Value:
        if integer_of(right.type) is None and right.type != LITERAL:
            raise self.refuse(node, "a shift count is an integer")
        low, high = bounds(right)
        if low < 0 or high > 63:
            raise self.refuse(node, "the shift count is not provably below 64", "x << (n & 63), or a constant")
        signed = self.signedness(node, [left])
        if signed and isinstance(node.op, ast.LShift):
            raise self.refuse(node, "<< is unsigned only", "u64(x) << n, or x * 2")
        left, right = self.sequence([left, right])
        name = "i64" if signed else "u64"
        text = left.text if integer_of(left.type) in (U64, I64) and left.const is None else f"cython.cast({name}, {left.text})"
        result = Value(f"({text} {SIGNS[type(node.op)]} {right.text})", I64 if signed else U64,
                       reads=left.reads or right.reads, calls=left.calls or right.calls)
        return self._ranged(node.op, result, left, right)

    def _and(self, node: ast.BinOp) -> Value:
        left, right = self._mask(node.left), self._mask(node.right)
        return self.binary(node, self._reduce(left, right), self._reduce(right, left))

    def _mask(self, node: ast.expr) -> Value:
        """An operand of `&`, where `~x` is allowed."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
            inner = self.value(node.operand)
            if inner.const is None:
                signed = self.signedness(node, [inner])
                return Value(f"(~{self.wide(inner, signed)})", I64 if signed else U64, reads=inner.reads, calls=inner.calls)
        return self.value(node)

    @staticmethod
    def _reduce(value: Value, other: Value) -> Value:
        """A negative mask constant beside an unsigned operand keeps its low 64 bits, as in Python."""
        integer = integer_of(other.type)
        if isinstance(value.const, int) and value.const < 0 and other.const is None and integer and not integer.signed:
            return constant(value.const & _MASK, LITERAL)
        return value

    def _UnaryOp(self, node: ast.UnaryOp) -> Value:
        if isinstance(node.op, ast.Not):
            inner = self.condition(node.operand)
            if inner.const is not None:
                return constant(not inner.const, BOOL)
            return Value(f"(not {inner.text})", BOOL, reads=inner.reads, calls=inner.calls)
        inner = self.value(node.operand)
        if isinstance(inner.const, int) and not isinstance(inner.const, bool):
            number = inner.const
            return constant(~number if isinstance(node.op, ast.Invert) else -number if isinstance(node.op, ast.USub) else number, LITERAL)
        if isinstance(node.op, ast.Invert):
            raise self.refuse(node, "~x stands only as an operand of & or inside wrap_*()", "x & ~mask, wrap_u64(~x)")
        if not self.signedness(node, [inner]):
            raise self.refuse(node, "unary minus on an unsigned value", "wrap_u64(-x), or -i64(x)")
        return Value(f"(-{self.wide(inner, True)})", I64, reads=inner.reads, calls=inner.calls)

    # -- truth -------------------------------------------------------------------------------------------------------------
    def condition(self, node: ast.expr) -> Value:
        """The truth of an expression: bool, an integer not 0, a pointer not None."""
        value = self.value(node)
        if value.type == BOOL:
            return value
        if isinstance(value.const, int):
            return constant(value.const != 0, BOOL)
        if integer_of(value.type) is not None:
            return Value(f"({value.text} != 0)", BOOL, reads=value.reads, calls=value.calls)
        if isinstance(value.type, Ref):
            return Value(f"({value.text} != cython.NULL)", BOOL, reads=value.reads, calls=value.calls)
        raise self.refuse(node, f"{describe(value.type)} is no condition", "compare it")

    def _BoolOp(self, node: ast.BoolOp) -> Value:
        ends = isinstance(node.op, ast.Or)
        kept: list[Value] = []
        for part in node.values:
            value = self.condition(part)
            if value.const is None:
                kept.append(value)
            elif bool(value.const) == ends:
                if not kept:
                    return constant(ends, BOOL)
                kept.append(value)
                break
        if not kept:
            return constant(not ends, BOOL)
        if len(kept) == 1:
            return kept[0]
        word = " or " if ends else " and "
        return Value(f"({word.join(value.text for value in kept)})", BOOL, reads=any(value.reads for value in kept),
                     calls=any(value.calls for value in kept))

    def _Compare(self, node: ast.Compare) -> Value:
        if isinstance(node.ops[0], (ast.In, ast.NotIn)):
            return self._in(node)
        values = [self.value(part) for part in (node.left, *node.comparators)]
        if len(node.ops) == 1 and isinstance(node.ops[0], (ast.Is, ast.IsNot)):
            return self._is(node, values)
        for op, left, right in zip(node.ops, values, values[1:]):
            if type(op) not in _COMPARE:
                raise self.refuse(node, f"comparison {type(op).__name__} is not in the subset", "==, is None, in (1, 2)")
            self._comparable(node, op, left, right)
        if all(value.const is not None for value in values):
            outcome = all(_COMPARE[type(op)][1](left.const, right.const)
                          for op, left, right in zip(node.ops, values, values[1:]))
            return constant(outcome, BOOL)
        values = self.sequence(values)
        signed = any((integer := integer_of(value.type)) is not None and integer.signed for value in values)
        text = self._operand(values[0], signed)
        for op, value in zip(node.ops, values[1:]):
            text += f" {_COMPARE[type(op)][0]} {self._operand(value, signed)}"
        return Value(f"({text})", BOOL, reads=any(value.reads for value in values), calls=any(value.calls for value in values))

    def _operand(self, value: Value, signed: bool) -> str:
        if isinstance(value.const, int) and value.type != BOOL:
            return self.wide(value, signed) if abs(value.const) >= 1 << 31 else value.text
        return value.text

    def _comparable(self, node: ast.AST, op: ast.cmpop, left: Value, right: Value) -> None:
        kinds = (left.type, right.type)
        if any(isinstance(kind, Ref) for kind in kinds) or NULL in kinds:
            if not all(isinstance(kind, Ref) for kind in kinds):
                raise self.refuse(node, "a pointer is compared with is None", "p is None, p is not None, p == q")
            if kinds[0].struct != kinds[1].struct or not isinstance(op, (ast.Eq, ast.NotEq)):  # type: ignore[union-attr]
                raise self.refuse(node, "references of one struct are compared with == and !=")
        elif BOOL in kinds:
            if kinds != (BOOL, BOOL) or not isinstance(op, (ast.Eq, ast.NotEq)):
                raise self.refuse(node, "bool is compared with bool", "write the condition itself")
        elif TEXT in kinds or any(isinstance(kind, Arr) for kind in kinds):
            raise self.refuse(node, "texts and arrays are not compared", "compare char_at(text, i) or elements in a loop")
        else:
            self.signedness(node, [left, right])

    def _is(self, node: ast.Compare, values: list[Value]) -> Value:
        left, right = values
        if right.type != NULL or not isinstance(left.type, Ref):
            raise self.refuse(node, "is compares a pointer with None", "== for the same struct")
        sign = "==" if isinstance(node.ops[0], ast.Is) else "!="
        return Value(f"({left.text} {sign} cython.NULL)", BOOL, reads=left.reads, calls=left.calls)

    def _in(self, node: ast.Compare) -> Value:
        choices = node.comparators[0]
        if len(node.ops) != 1 or not isinstance(choices, ast.Tuple) or not choices.elts:
            raise self.refuse(node, "in wants a tuple", "x in (1, 2, 3)")
        left = self.value(node.left)
        values = [self.value(choice) for choice in choices.elts]
        for choice, value in zip(choices.elts, values):
            if value.calls:
                raise self.refuse(choice, "a call in a tuple of choices", "assign its result to a local first")
            self._comparable(node, ast.Eq(), left, value)
        wanted = isinstance(node.ops[0], ast.In)
        if left.const is not None and all(value.const is not None for value in values):
            return constant((left.const in [value.const for value in values]) == wanted, BOOL)
        if not left.text.isidentifier() and left.const is None:
            left = self.hoist(left)
        name = left.text[1:].split(" ")[0] if ":=" in left.text else left.text
        tests = [f"{name if index else left.text} == {self._operand(value, False)}" for index, value in enumerate(values)]
        text = f"({' or '.join(tests)})"
        return Value(text if wanted else f"(not {text})", BOOL, reads=any(value.reads for value in (left, *values)),
                     calls=left.calls)

    def _IfExp(self, node: ast.IfExp) -> Value:
        test = self.condition(node.test)
        if test.const is not None:
            return self.value(node.body if test.const else node.orelse)
        first, second = self.value(node.body), self.value(node.orelse)
        kind = self.common(node, first, second)
        text = f"({self.converted(first, kind)} if {test.text} else {self.converted(second, kind)})"
        parts = (test, first, second)
        result = Value(text, kind, reads=any(part.reads for part in parts), calls=any(part.calls for part in parts))
        if isinstance(kind, Int) or kind == LITERAL:
            low, high = zip(bounds(first), bounds(second))
            result.low, result.high = min(low), max(high)
        return result

    def common(self, node: ast.AST, first: Value, second: Value) -> Type:
        """The type that holds both values."""
        if first.type == second.type and first.type != LITERAL:
            return first.type
        if isinstance(first.type, Ref) and (second.type == NULL or isinstance(second.type, Ref)):
            if second.type == NULL or second.type.struct == first.type.struct:  # type: ignore[union-attr]
                return Ref(first.type.struct, True)
        if isinstance(second.type, Ref) and first.type == NULL:
            return Ref(second.type.struct, True)
        if all(isinstance(value.type, (Int, Enum)) or value.type == LITERAL for value in (first, second)):
            if first.type == second.type:
                return LITERAL
            return I64 if self.signedness(node, [first, second]) else U64
        raise self.refuse(node, f"{describe(first.type)} and {describe(second.type)} do not agree")

    def converted(self, value: Value, kind: Type) -> str:
        """The text of a value with exactly the C type of `kind`."""
        if value.type == TEXT and value.const is not None or (integer_of(kind) is not None and value.type != kind):
            return f"cython.cast({c_type(kind)}, {value.text})"
        return f"cython.cast(i64, {value.text})" if kind == LITERAL else value.text
