"""Branches: if with what the build decides folded away, and match."""
from __future__ import annotations

import ast

from entities import Value
from expressions import constant
from loops import Loops
from subset_types import I64, LITERAL, U64, describe, integer_of


class Branches(Loops):
    """Branches of a function; functions.py has the rest of it."""

    depth: int

    def _If(self, node: ast.If) -> None:
        self._branch(node, "if")

    def _branch(self, node: ast.If, word: str) -> None:
        test = self.condition(node.test)
        if test.const is not None:
            return self._folded_branch(node, word, bool(test.const))
        self.emit(node.lineno, f"{word} {test.text}:")
        self.block(node.body)
        self._otherwise(node, "elif", "else:")

    def _folded_branch(self, node: ast.If, word: str, taken: bool) -> None:
        self.folded[id(node)] = taken
        if taken:
            self.emit(node.lineno, "if True:" if word == "if" else "else:")
            self.block(node.body)
        elif node.orelse:
            self._otherwise(node, word, "if True:" if word == "if" else "else:")
        elif word == "if":
            self.emit(node.lineno, "pass")

    def _otherwise(self, node: ast.If, word: str, header: str) -> None:
        if not node.orelse:
            return
        first = node.orelse[0]
        source = self.module.lines[first.lineno - 1][first.col_offset:]
        if len(node.orelse) == 1 and isinstance(first, ast.If) and source.startswith("elif"):
            return self._branch(first, word)
        line = first.lineno
        while line > node.lineno and not self.module.lines[line - 1].lstrip().startswith("else"):
            line -= 1
        self.emit(line, header)
        self.block(node.orelse)

    def _Match(self, node: ast.Match) -> None:
        subject = self.value(node.subject)
        if isinstance(subject.const, int) and subject.type == LITERAL:
            subject = constant(subject.const, I64 if subject.const < 1 << 63 else U64)
        if integer_of(subject.type) is None:
            raise self.refuse(node, f"match on {describe(subject.type)}", "integers and enums are matched")
        if subject.text.isidentifier():
            name, header = subject.text, "if True:"
        else:
            name = self.temporary(subject.type)
            header = f"if ({name} := {subject.text}) == {name}:"
        self.emit(node.lineno, header)
        self.depth += 1
        for index, case in enumerate(node.cases):
            tests = self._patterns(case.pattern, Value(name, subject.type))
            text = f"({' or '.join(tests)})" if tests else ""
            if case.guard is not None:
                guard = self.condition(case.guard).text
                text = f"({text} and {guard})" if text else guard
            if not text:
                self.emit(case.pattern.lineno, "else:" if index else "if True:")
            else:
                self.emit(case.pattern.lineno, f"{'elif' if index else 'if'} {text}:")
            self.block(case.body)
        self.depth -= 1

    def _patterns(self, pattern: ast.pattern, subject: Value) -> list[str]:
        """The tests of a pattern; none for `_`."""
        match pattern:
            case ast.MatchAs(pattern=None, name=None):
                return []
            case ast.MatchOr(patterns):
                return [test for part in patterns for test in self._patterns(part, subject)]
            case ast.MatchValue(value):
                wanted = self.value(value)
                if wanted.const is None:
                    raise self.refuse(pattern, "a case is a constant", "if/elif compares variables")
                self._comparable(pattern, ast.Eq(), subject, wanted)
                return [f"{subject.text} == {self._operand(wanted, False)}"]
        raise self.refuse(pattern, f"pattern {type(pattern).__name__} is not in the subset", "constants, a | b, _, guards")
