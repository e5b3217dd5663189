"""f-strings as arguments: chained calls of hypervisor/format.py that write into a line buffer of the function."""
from __future__ import annotations

import ast
import re

from calls import Calls
from entities import Function, Module, Value
from subset_types import BOOL, LITERAL, TEXT, describe, integer_of

_SPEC = re.compile(r"(<|>)?(#)?(0)?([1-9]\d*)?([dxs])?")
_HEX, _PREFIX, _ZEROS, _LEFT = 1, 2, 4, 8  # styles of hypervisor/format.py


class Texts(Calls):
    """Calls with f-strings."""

    formatter: Module | None = None

    def line_storage(self) -> str:
        """The address of a line buffer for one f-string."""
        raise NotImplementedError

    def argument(self, node: ast.expr) -> Value:
        """The value of an argument; here f-strings are allowed."""
        return self._f_string(node) if isinstance(node, ast.JoinedStr) else self.value(node)

    def _JoinedStr(self, node: ast.JoinedStr) -> Value:
        raise self.refuse(node, "an f-string is only an argument for a parameter of type str")

    def _format(self, name: str, texts: list[str]) -> str:
        assert self.formatter is not None
        function = self.formatter.names[name]
        assert isinstance(function, Function)
        return self.use_function(function, texts).text

    def _f_string(self, node: ast.JoinedStr) -> Value:
        """The text of an f-string; it lives as long as the function's line buffer."""
        values: list[tuple[Value, str, int, int]] = []
        for part in node.values:
            if isinstance(part, ast.Constant):
                values.append((self.value(part), "put_text", 0, 0))
            else:
                assert isinstance(part, ast.FormattedValue)
                values.append(self._formatted(part))
        in_order = self.sequence([value for value, *_ in values])
        text = self._format("begin", [self.line_storage()])
        for value, (_, function, width, style) in zip(in_order, values):
            given = self.wide(value, function == "put_i64") if function in ("put_u64", "put_i64") else value.text
            more = [str(width), str(style)] if function != "put_bool" else []
            text = self._format(function, [text, given, *more])
        return Value(self._format("finish", [text]), TEXT, reads=True, calls=True)

    def _formatted(self, part: ast.FormattedValue) -> tuple[Value, str, int, int]:
        value = self.value(part.value)
        spec = ""
        if part.format_spec is not None:
            assert isinstance(part.format_spec, ast.JoinedStr)
            if not all(isinstance(piece, ast.Constant) for piece in part.format_spec.values):
                raise self.refuse(part, "a format specification is constant")
            spec = "".join(str(piece.value) for piece in part.format_spec.values if isinstance(piece, ast.Constant))
        match = _SPEC.fullmatch(spec)
        if match is None or part.conversion != -1:
            raise self.refuse(part, f"format {spec!r} is not in the subset", "decimal, x, #x, 08x, 5, <12, >12")
        align, prefix, zeros, width, kind = match.groups()
        style = (_HEX if kind == "x" else 0) | (_PREFIX if prefix and kind == "x" else 0) | (_ZEROS if zeros else 0)
        if value.type == TEXT and kind in (None, "s") and not prefix and not zeros:
            return value, "put_text", int(width or 0), 0 if align == ">" else _LEFT
        if value.type == BOOL and not spec:
            return value, "put_bool", 0, 0
        if (integer_of(value.type) is None and value.type != LITERAL) or kind == "s":
            raise self.refuse(part, f"{describe(value.type)} with format {spec!r}", "integers, texts, bool without format")
        name = "put_i64" if self.signedness(part, [value]) else "put_u64"
        return value, name, int(width or 0), style | (_LEFT if align == "<" else 0)
