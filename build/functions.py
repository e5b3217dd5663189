"""Writes the bodies of functions for Cython: every statement on the line where the source has it."""
from __future__ import annotations

import ast
from typing import Callable

from assigned import Assigned
from branches import Branches
from entities import Builtin, Function, FunctionTable, Local, Module, TypeName, Value
from expressions import Uses, bounds, constant
from subset_types import (I64, LITERAL, NONE, NORETURN, NULL, Arr, Ref, SubsetError, Type, c_name, c_type, describe, flat_element,
                          integer_of, is_struct_value, size_align)

Resolver = Callable[[Module, ast.expr], Type]


class FunctionWriter(Branches):
    """Writes one function into the lines of its module's .py'."""

    def __init__(self, module: Module, uses: Uses, function: Function, lines: list[str], resolve: Resolver,
                 formatter: Module | None) -> None:
        super().__init__(module, uses)
        self.function, self.lines, self.resolve, self.formatter = function, lines, resolve, formatter
        self.locals: dict[str, Local] = {}
        self.declared: dict[str, str] = {}
        self.errors: list[SubsetError] = []
        self.folded: dict[int, bool] = {}
        self.endless_calls: set[int] = set()
        self.depth = 0
        self.loop_depth = 0
        self.temporaries = 0
        self.line_buffers = 0
        self.line = function.node.lineno
        stored = [node.id for node in ast.walk(function.node) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
        self.stored_once = {name for name in stored if stored.count(name) == 1} - {name for name, _ in function.params}

    # -- what expressions ask for ----------------------------------------------------------------------------------------
    def local(self, name: str) -> Value | None:
        """The value of a local variable."""
        found = self.locals.get(name)
        if found is None:
            return None
        if found.const is not None:
            return constant(found.const, LITERAL)
        return Value(found.text, found.type, low=found.low, high=found.high, direct=found.direct)

    def declare(self, name: str, kind: str) -> str:
        """Declare storage in the function; `kind` is a C type as Cython's declarations write it."""
        if self.declared.setdefault(name, kind) != kind:
            raise self.module.error(self.line, f"{name} has two types in this function", "use another name")
        return name

    def temporary(self, kind: Type) -> str:
        """A fresh hidden local."""
        self.temporaries += 1
        return self.declare(f"t__{self.temporaries}", c_type(I64 if kind == LITERAL else kind))

    def hoist(self, value: Value) -> Value:
        """Evaluate a value into a temporary, where Python evaluates it."""
        if isinstance(value.type, Arr):
            text, kind = self.first_element(value), value.type
            name = self.temporary(kind)
            return Value(f"({name} := {text})", kind, calls=value.calls, direct=False)
        name = self.temporary(value.type)
        return Value(f"({name} := {value.text})", value.type, calls=value.calls, low=value.low, high=value.high)

    def line_storage(self) -> str:
        """A line buffer of this function for an f-string."""
        assert self.formatter is not None
        kind = self.formatter.names["Line"]
        assert isinstance(kind, TypeName) and isinstance(kind.type, Ref)
        self.uses.struct(kind.type.struct)
        self.line_buffers += 1
        return f"cython.address({self.declare(f'line__{self.line_buffers}', kind.type.struct.c_name)})"

    def use_function(self, function: Function, texts: list[str]) -> Value:
        """Note the call for the call graph."""
        self.function.calls.add(function.symbol)
        return super().use_function(function, texts)

    def _table_call(self, node: ast.Call, subscript: ast.Subscript, table: FunctionTable) -> Value:
        self.function.calls.update(function.symbol for function in table.functions)
        return super()._table_call(node, subscript, table)

    # -- output -----------------------------------------------------------------------------------------------------------
    def emit(self, line: int, text: str) -> None:
        """Put a statement on its line."""
        old = self.lines[line - 1]
        if not old:
            self.lines[line - 1] = "    " * self.depth + text
        elif text.endswith(":"):
            raise self.module.error(line, "one compound statement a line")
        else:
            self.lines[line - 1] = f"{old} {text}" if old.endswith(":") else f"{old}; {text}"

    def block(self, body: list[ast.stmt]) -> None:
        """Write the statements of a block; what is refused is collected."""
        self.depth += 1
        for statement in body:
            buffers, self.line_buffers = self.line_buffers, 0
            try:
                self.statement(statement)
            except SubsetError as error:
                self.errors.append(error)
            self.line_buffers = max(buffers, 0)
        self.depth -= 1

    def statement(self, node: ast.stmt) -> None:
        """Write one statement."""
        self.line = node.lineno
        method = getattr(self, f"_{type(node).__name__}", None)
        if method is None:
            raise self.refuse(node, f"{type(node).__name__} is not in the subset", _INSTEAD.get(type(node), "see docs/subset.md"))
        method(node)

    def write(self) -> None:
        """Write the whole function."""
        node = self.function.node
        for name, kind in self.function.params:
            self.locals[name] = Local(kind, c_name(name), c_name(name), direct=not isinstance(kind, Arr))
            if isinstance(kind, Ref):
                self.uses.struct(kind.struct)
        self.emit(node.lineno, f"def {node.name}({', '.join(c_name(name) for name, _ in self.function.params)}):")
        self.block(node.body)
        if not self.errors:
            self.errors += [self.refuse(name, f"{text} may have no value yet", "assign it on every path that leads here")
                            for name, text in Assigned(node, self.endless_calls, self.folded).early]
        if self.function.result not in (NONE, NORETURN) and not self.ends(node.body) and not self.errors:
            self.errors.append(self.refuse(node.body[-1], f"{node.name}() can end without a value", "return on every path"))

    # -- assignments --------------------------------------------------------------------------------------------------------
    def _Assign(self, node: ast.Assign) -> None:
        target = node.targets[0]
        if len(node.targets) != 1 or isinstance(target, (ast.Tuple, ast.List, ast.Starred)):
            raise self.refuse(node, "one target an assignment", "write one statement each")
        self.assign(node, target, node.value, None)

    def _AnnAssign(self, node: ast.AnnAssign) -> None:
        if not isinstance(node.target, ast.Name):
            raise self.refuse(node, "only names are annotated")
        kind = self.resolve(self.module, node.annotation)
        if node.value is None:
            self.new_local(node, node.target.id, kind)
            self.emit(node.lineno, "pass")
        else:
            self.assign(node, node.target, node.value, kind)

    def assign(self, node: ast.stmt, target: ast.expr, value: ast.expr, kind: Type | None) -> None:
        """`target = value`, with the annotated type if there is one."""
        if isinstance(value, ast.Call) and isinstance(target, ast.Name):
            entity = self.entity(value.func)
            if isinstance(entity, TypeName) and isinstance(entity.type, Ref):
                return self._struct_storage(node, target.id, value, entity.type)
            if isinstance(entity, Builtin) and entity.name == "array":
                return self._array_storage(node, target.id, value, kind)
        given = self.value(value)
        if isinstance(target, ast.Name):
            return self._assign_local(node, target.id, given, kind)
        if not isinstance(target, (ast.Attribute, ast.Subscript)):
            raise self.refuse(node, "this is no target of an assignment")
        place = self.value(target)
        if not place.place or is_struct_value(place.type) or isinstance(place.type, Arr):
            raise self.refuse(node, "a struct or an array is not assigned", "copy(dst, src)")
        text = self.store(node, given, place.type, ast.unparse(target))
        if given.calls or place.calls:
            name = self.temporary(given.type if given.type != NULL else place.type)
            self.emit(node.lineno, f"{name} = {text}")
            text = name
        self.emit(node.lineno, f"{place.place} = {text}")

    def _assign_local(self, node: ast.stmt, name: str, given: Value, kind: Type | None) -> None:
        if name not in self.locals:
            if kind is None and given.type in (NULL, NONE, NORETURN):
                raise self.refuse(node, f"the type of {name} is not known", f"{name}: S | None = None")
            fixed = kind is None and isinstance(given.const, int) and given.type == LITERAL and name in self.stored_once
            kind = kind or (I64 if given.type == LITERAL else given.type)
            if isinstance(kind, Arr):
                self.locals[name] = Local(kind, self.declare(c_name(name), c_type(kind)), c_name(name), direct=False)
            else:
                self.new_local(node, name, kind)
            if fixed and isinstance(given.const, int):
                self.locals[name].const = given.const
        found = self.locals[name]
        if not found.assignable or (isinstance(found.type, Arr) and found.direct):
            raise self.refuse(node, f"{name} is not assigned: it is a loop variable or an array", "use another name")
        if kind is not None and kind != found.type and not isinstance(kind, Ref):
            raise self.refuse(node, f"{name} is {describe(found.type)} in this function", "one type a name: use another name")
        text = self.store(node, given, found.type, name)
        if name in self.stored_once and (width := integer_of(found.type)) is not None:
            low, high = bounds(given)
            if width.low <= low and high <= width.high:
                found.low, found.high = low, high
        if isinstance(given.type, Arr):
            text = self.first_element(given)
        if found.form == "address":
            text = f"cython.cast(u64, {text})"
        self.emit(node.lineno, f"{found.storage} = {text}")

    def new_local(self, node: ast.AST, name: str, kind: Type) -> None:
        """Declare a local variable of a scalar or reference type."""
        if isinstance(kind, Arr):
            raise self.refuse(node, f"{name} has no storage", f"{name}: {describe(kind)} = array(T, N)")
        if name in self.locals and self.locals[name].type != kind:
            raise self.refuse(node, f"{name} is {describe(self.locals[name].type)} in this function", "use another name")
        if isinstance(kind, Ref):
            self.uses.struct(kind.struct)
        storage = self.declare("unused_" if name == "_" else c_name(name), c_type(kind))
        self.locals[name] = Local(kind, storage, storage)

    def _storage_name(self, node: ast.AST, name: str) -> str:
        if self.loop_depth:
            raise self.refuse(node, "storage is not made inside a loop", "make it before the loop and clear() it inside")
        return f"{c_name(name)}__{len(self.declared)}"

    def _struct_storage(self, node: ast.stmt, name: str, call: ast.Call, kind: Ref) -> None:
        if call.args or call.keywords:
            raise self.refuse(node, f"{kind.struct.name}() takes no arguments", "assign the fields")
        storage = self.declare(self._storage_name(node, name), kind.struct.c_name)
        if name not in self.locals:
            self.new_local(node, name, kind)
        self.uses.struct(kind.struct)
        self.emit(node.lineno, f"{self.locals[name].storage} = cython.address({storage})")
        self.emit(node.lineno, f"krait_clear({self.locals[name].storage}, {kind.struct.size})")

    def _array_storage(self, node: ast.stmt, name: str, call: ast.Call, kind: Type | None) -> None:
        if len(call.args) != 2 or name in self.locals:
            raise self.refuse(node, "a local array is made once", f"{name}: Annotated[list[T], N] = array(T, N)")
        entity, count = self.entity(call.args[0]), self.value(call.args[1]).const
        if not isinstance(entity, TypeName) or not isinstance(count, int):
            raise self.refuse(node, "array() wants a type and a constant", "array(u8, 64)")
        made = Arr(entity.type, count)
        if kind is not None and kind != made:
            raise self.refuse(node, f"{describe(made)} is not {describe(kind)}")
        self._storage_name(node, name)
        element = flat_element(made)
        if isinstance(element, Ref):
            self.uses.struct(element.struct)
        base = element.struct.c_name if isinstance(element, Ref) and not element.nullable else c_type(element)
        self.declare(c_name(name), f"{base}[{count}]")
        self.locals[name] = Local(made, c_name(name), c_name(name))
        self.emit(node.lineno, f"krait_clear(cython.address({c_name(name)}[0]), {size_align(made)[0]})")

    def _AugAssign(self, node: ast.AugAssign) -> None:
        read = ast.copy_location(ast.BinOp(node.target, node.op, node.value), node)
        ast.fix_missing_locations(read)
        if isinstance(node.target, ast.Name):
            if node.target.id not in self.locals:
                raise self.refuse(node, f"{node.target.id} has no value yet", "mutable globals are fields of a struct")
            return self._assign_local(node, node.target.id, self.value(read), None)
        place = self.value(node.target)
        if place.calls:
            raise self.refuse(node, "a target with a call in it would be evaluated twice", "take the reference or index first")
        self.assign(node, node.target, read, None)

    # -- simple statements ------------------------------------------------------------------------------------------------
    def _Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return self.emit(node.lineno, "pass")
        if not isinstance(node.value, ast.Call):
            raise self.refuse(node, "an expression alone has no effect", "call, assign or delete it")
        value = self.value(node.value)
        if value.type == NORETURN:
            self.endless_calls.add(id(node))
        self.emit(node.lineno, value.text)

    def _Pass(self, node: ast.Pass) -> None:
        self.emit(node.lineno, "pass")

    def _Break(self, node: ast.Break) -> None:
        self.emit(node.lineno, "break")

    def _Continue(self, node: ast.Continue) -> None:
        self.emit(node.lineno, "continue")

    def _Return(self, node: ast.Return) -> None:
        result = self.function.result
        nothing = node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None)
        if result == NORETURN:
            raise self.refuse(node, f"{self.function.name}() is NoReturn")
        if result == NONE:
            if not nothing:
                raise self.refuse(node, f"{self.function.name}() returns None")
            return self.emit(node.lineno, "return")
        if node.value is None:
            raise self.refuse(node, f"{self.function.name}() returns {describe(result)}")
        self.emit(node.lineno, f"return {self.store(node, self.value(node.value), result, 'the result')}")

    def _Assert(self, node: ast.Assert) -> None:
        if node.msg is not None and not isinstance(node.msg, ast.Constant):
            raise self.refuse(node, "an assertion's message is a constant")
        test = self.condition(node.test)
        if test.const is None:
            return self.emit(node.lineno, f"krait_check({test.text})")
        self.folded[id(node)] = bool(test.const)
        self.emit(node.lineno, "pass" if test.const else "krait_trap()")

    # -- ends of paths --------------------------------------------------------------------------------------------------------
    def ends(self, body: list[ast.stmt]) -> bool:
        """Whether a block never falls through its end."""
        return any(self._ends(node) for node in body)

    def _ends(self, node: ast.stmt) -> bool:
        match node:
            case ast.Return():
                return True
            case ast.Assert():
                return self.folded.get(id(node)) is False
            case ast.Expr():
                return id(node) in self.endless_calls
            case ast.If():
                if id(node) in self.folded:
                    return self.ends(node.body if self.folded[id(node)] else node.orelse)
                return self.ends(node.body) and self.ends(node.orelse)
            case ast.While():
                return self.folded.get(id(node)) is True and not any(_breaks(part) for part in node.body)
            case ast.Match():
                last = node.cases[-1]
                return (isinstance(last.pattern, ast.MatchAs) and last.guard is None
                        and all(self.ends(case.body) for case in node.cases))
        return False


def _breaks(node: ast.stmt) -> bool:
    """Whether a `break` in the statement leaves the loop around it."""
    if isinstance(node, ast.Break):
        return True
    if isinstance(node, (ast.While, ast.For)):
        return False
    inner = [part for name in ("body", "orelse") for part in getattr(node, name, [])]
    inner += [part for case in getattr(node, "cases", []) for part in case.body]
    return any(_breaks(part) for part in inner)


_INSTEAD: dict[type[ast.stmt], str] = {
    ast.Try: "return a Status", ast.Raise: "return a Status, or assert for our own bugs", ast.With: "call lock and unlock",
    ast.Global: "mutable globals are fields of a struct", ast.Delete: "clear(x)", ast.FunctionDef: "functions stand at module level",
    ast.ClassDef: "structs stand at module level", ast.Import: "imports stand at the top of the module",
    ast.ImportFrom: "imports stand at the top of the module"}
