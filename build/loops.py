"""Loops: while, for over range, for over a fixed array."""
from __future__ import annotations

import ast

from entities import Builtin, Local, Value
from expressions import bounds, integer_text
from subset_types import I64, U64, Arr, Ref, Type, c_name, c_type, describe, integer_of, is_struct_value
from texts import Texts


class Loops(Texts):
    """Loops of a function; functions.py has the rest of it."""

    locals: dict[str, Local]
    folded: dict[int, bool]
    loop_depth: int

    def emit(self, line: int, text: str) -> None:
        """Put a statement on its line."""
        raise NotImplementedError

    def block(self, body: list[ast.stmt]) -> None:
        """Write the statements of a block."""
        raise NotImplementedError

    def declare(self, name: str, kind: str) -> str:
        """Declare storage in the function."""
        raise NotImplementedError

    def temporary(self, kind: Type) -> str:
        """A fresh hidden local."""
        raise NotImplementedError

    def _While(self, node: ast.While) -> None:
        if node.orelse:
            raise self.refuse(node, "while/else is not in the subset", "a bool that says how the loop ended")
        test = self.condition(node.test)
        if test.const is not None:
            self.folded[id(node)] = bool(test.const)
        self.emit(node.lineno, f"while {test.text if test.const is None else bool(test.const)}:")
        self._body(node.body)

    def _body(self, body: list[ast.stmt]) -> None:
        self.loop_depth += 1
        self.block(body)
        self.loop_depth -= 1

    def _For(self, node: ast.For) -> None:
        if node.orelse or not isinstance(node.target, ast.Name):
            raise self.refuse(node, "for/else and several loop variables are not in the subset", "one name; a bool for else")
        name = node.target.id
        if isinstance(node.iter, ast.Call) and isinstance(entity := self.entity(node.iter.func), Builtin) and entity.name == "range":
            return self._range(node, name, node.iter)
        owner = self.value(node.iter)
        if not isinstance(owner.type, Arr) or isinstance(owner.type.element, Arr):
            raise self.refuse(node, f"for over {describe(owner.type)}", "range(n), or a fixed array of one dimension")
        element, count = owner.type.element, owner.type.count
        if is_struct_value(element):
            assert isinstance(element, Ref)
            storage = self._loop_storage(node, name, U64, "address")
            first = f"cython.cast(u64, {self.first_element(owner)})"
            if owner.calls or owner.reads:
                start = self.temporary(U64)
                first, start = f"({start} := {first})", start
            else:
                start = first
            header = f"for {storage} in range({first}, {start} + {count * element.struct.size}, {element.struct.size}):"
            read = f"cython.cast({c_type(element)}, {storage})"
            return self._loop(node, name, header, Local(element, storage, read, form="address"))
        storage = self._loop_storage(node, name, element, "plain")
        self._loop(node, name, f"for {storage} in {owner.text}[:{count}]:", Local(element, storage, storage))

    def _loop_storage(self, node: ast.For, name: str, kind: Type, form: str) -> str:
        found = self.locals.get(name)
        suffix = {"plain": "", "address": "__at", "down": "__down", "count": "__count"}[form]
        if found is not None and found.form == form == "plain" and found.type != kind:
            raise self.refuse(node, f"{name} is {describe(found.type)} in this function", "use another name")
        if found is not None and found.form == "plain" and form == "address":
            raise self.refuse(node, f"{name} names another value already", "use another name for the loop variable")
        base = "unused_" if name == "_" else c_name(name)
        if form == "count":
            return self.temporary(U64)
        return self.declare(base + suffix + ("_i" if name == "_" and integer_of(kind) == I64 else ""), c_type(kind))

    def _loop(self, node: ast.For, name: str, header: str, variable: Local) -> None:
        """Write the loop; its variable can be assigned afterwards where it has storage of its own."""
        self.emit(node.lineno, header)
        before = self.locals.get(name)
        variable.assignable = False
        self.locals[name] = variable
        self._body(node.body)
        if variable.form in ("plain", "address"):
            self.locals[name] = Local(variable.type, variable.storage, variable.text, form=variable.form)
        elif before is not None and before.form == "plain":
            self.locals[name] = before

    def _range(self, node: ast.For, name: str, call: ast.Call) -> None:
        if not 1 <= len(call.args) <= 3 or call.keywords:
            raise self.refuse(node, "range() takes 1 to 3 arguments")
        values = [self.value(part) for part in call.args]
        step = values[2].const if len(values) == 3 else 1
        if not isinstance(step, int) or step == 0:
            raise self.refuse(node, "the step of range() is a constant other than 0")
        start, stop = (Value("0", I64, 0), values[0]) if len(values) == 1 else (values[0], values[1])
        if step < 0:
            return self._down(node, name, call, [start, stop], step)
        signed = self.signedness(node, [start, stop])
        if isinstance(start.const, int) and start.const < 0:
            signed = True
        kind = I64 if signed else U64
        start, stop = self.sequence([start, stop])
        low, high = bounds(start)[0], bounds(stop)[1] - 1
        texts = self.wide(start, signed), self.wide(stop, signed)
        if step == 1 or isinstance(stop.const, int) or signed:
            storage = self._loop_storage(node, name, kind, "plain")
            more = f", {step}" if step != 1 else ""
            header = f"for {storage} in range({', '.join(texts)}{more}):"
            return self._loop(node, name, header, Local(kind, storage, storage, low=low, high=high))
        storage, base = self._loop_storage(node, name, U64, "count"), self.temporary(U64)
        header = f"for {storage} in range(krait_steps(({base} := {texts[0]}), {texts[1]}, {step})):"
        self._loop(node, name, header, Local(U64, storage, f"({base} + {storage} * {step})", low=low, high=high, form="count"))

    def _down(self, node: ast.For, name: str, call: ast.Call, values: list[Value], step: int) -> None:
        """A loop downwards: counted in i64, seen unsigned where no value can be negative."""
        start, stop = self.sequence(values)
        first = call.args[0]
        seen_signed = any((integer := integer_of(value.type)) is not None and integer.signed and value.const is None
                          for value in (start, stop)) or (isinstance(stop.const, int) and stop.const < -1)
        text = self.wide(start, True)
        if isinstance(first, ast.BinOp) and isinstance(first.op, ast.Sub) and start.const is None and not seen_signed:
            left, right = self.sequence([self.value(first.left), self.value(first.right)])
            text = f"({self.wide(left, True)} - {self.wide(right, True)})"
        storage = self._loop_storage(node, name, I64, "plain" if seen_signed else "down")
        header = f"for {storage} in range({text}, {self.wide(stop, True)}, {integer_text(step)}):"
        low = stop.const + 1 if isinstance(stop.const, int) else None
        read = storage if seen_signed else f"cython.cast(u64, {storage})"
        form = "plain" if seen_signed else "down"
        self._loop(node, name, header, Local(I64 if seen_signed else U64, storage, read, low=low, high=bounds(start)[1], form=form))
