"""Refuses a local that may be read before it has a value: CPython would raise, C would read what lies there."""
from __future__ import annotations

import ast
from collections.abc import Iterator

Known = set[str] | None  # None: the end of the block is not reached


class Assigned:
    """Follows the paths of one function. `ends` are the statements known never to fall through; `folded` constant tests."""

    def __init__(self, node: ast.FunctionDef, ends: set[int], folded: dict[int, bool]) -> None:
        self.ends, self.folded = ends, folded
        self.locals = {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
        self.early: list[tuple[ast.Name, str]] = []
        self._breaks: list[list[set[str]]] = []
        self._block(node.body, {argument.arg for argument in node.args.args})

    def _block(self, body: list[ast.stmt], known: Known) -> Known:
        for node in body:
            if known is None:
                return None
            known = self._statement(node, set(known))
        return known

    def _read(self, node: ast.AST | None, known: set[str]) -> None:
        for name in ast.walk(node) if node is not None else ():
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load) and name.id in self.locals - known:
                self.early.append((name, name.id))

    def _statement(self, node: ast.stmt, known: set[str]) -> Known:
        match node:
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                return self._assign(node, known)
            case ast.If():
                return self._if(node, known)
            case ast.While():
                self._read(node.test, known)
                after = self._loop(node.body, known)
                return _common(after) if self.folded.get(id(node)) else known
            case ast.For():
                self._read(node.iter, known)
                self._loop(node.body, known | set(_targets(node.target)))
                return known
            case ast.Match():
                return self._match(node, known)
            case ast.Break():
                self._breaks[-1].append(known)
                return None
            case ast.Continue():
                return None
        self._read(node, known)
        return None if isinstance(node, ast.Return) or id(node) in self.ends or self.folded.get(id(node)) is False else known

    def _assign(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign, known: set[str]) -> Known:
        self._read(node.value, known)
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(node, ast.AugAssign) and isinstance(target, ast.Name) and target.id not in known:
                self.early.append((target, target.id))
            self._read(target, known)
            if node.value is not None:
                known |= set(_targets(target))
        return known

    def _if(self, node: ast.If, known: set[str]) -> Known:
        self._read(node.test, known)
        if id(node) in self.folded:
            return self._block(node.body if self.folded[id(node)] else node.orelse, known)
        return _common([self._block(node.body, known), self._block(node.orelse, known)])

    def _match(self, node: ast.Match, known: set[str]) -> Known:
        self._read(node.subject, known)
        after: list[Known] = []
        for case in node.cases:
            self._read(case.guard, known)
            after.append(self._block(case.body, known))
        last = node.cases[-1]
        total = isinstance(last.pattern, ast.MatchAs) and last.pattern.name is None and last.guard is None
        return _common(after if total else [*after, known])

    def _loop(self, body: list[ast.stmt], known: set[str]) -> list[Known]:
        """What is known at each break."""
        self._breaks.append([])
        self._block(body, known)
        return list(self._breaks.pop())


def _common(paths: list[Known]) -> Known:
    """What is known after paths that meet."""
    reached = [path for path in paths if path is not None]
    return set.intersection(*reached) if reached else None


def _targets(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
