"""Arithmetic: every operand is widened to 64 bits, constants are folded, what C leaves undefined is refused."""
from __future__ import annotations

import ast
import operator
from typing import Callable

from entities import Value
from expressions import MASK, Expressions, bounds, constant
from subset_types import BOOL, I64, LITERAL, TEXT, U64, Enum, NewInt, Type, describe, integer_of

_FOLD: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.LShift: operator.lshift, ast.RShift: operator.rshift, ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.Pow: operator.pow}
SIGNS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%",
                                        ast.LShift: "<<", ast.RShift: ">>", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^"}


class Arithmetic(Expressions):
    """Expressions with operators on numbers."""

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
            if not (-(1 << 63) <= low and high < 1 << 63 if signed else 0 <= low and high <= MASK):
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
        if isinstance(node.op, (ast.LShift, ast.RShift, ast.Pow)) and not 0 <= right.const <= 64:
            raise self.refuse(node, f"{right.const} is no count for {type(node.op).__name__}", "0 to 64 in constant expressions")
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
            return constant(value.const & MASK, LITERAL)
        return value
