"""Conditions: truth, and/or/not, comparisons, conditional expressions."""
from __future__ import annotations

import ast
import operator
from typing import Callable

from arithmetic import Arithmetic
from entities import Value
from expressions import bounds, constant
from subset_types import BOOL, I64, LITERAL, NULL, TEXT, U64, Arr, Enum, Int, Ref, Type, c_type, describe, integer_of

_COMPARE: dict[type[ast.cmpop], tuple[str, Callable[[object, object], bool]]] = {
    ast.Eq: ("==", operator.eq), ast.NotEq: ("!=", operator.ne), ast.Lt: ("<", operator.lt),  # type: ignore[dict-item]
    ast.LtE: ("<=", operator.le), ast.Gt: (">", operator.gt), ast.GtE: (">=", operator.ge)}  # type: ignore[dict-item]


class Conditions(Arithmetic):
    """Expressions with truth."""

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
