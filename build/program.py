"""Loads the modules of a program and declares what they define: constants, types, tables, globals, functions."""
from __future__ import annotations

import ast
from pathlib import Path

from entities import Builtin, Constant, ConstTable, Function, FunctionTable, Global, Module, TypeName, Value
from expressions import Uses, constant
from subset_types import (BOOL, LITERAL, NONE, NORETURN, TEXT, WIDTHS, Arr, Enum, Int, NewInt, Ref, Struct, SubsetError, Type,
                          is_struct_value, lay_out)
from texts import Texts

LANG = "hypervisor.lang"
FORMAT = "hypervisor.format"
OPTIONS = "hypervisor.build_options"
_OUTSIDE = {"typing", "enum", "__future__", LANG}


class Declarations(Texts):
    """Declares the names of one module, from top to bottom."""

    def __init__(self, program: Program, module: Module) -> None:
        super().__init__(module, Uses())
        self.program = program
        self.errors: list[SubsetError] = []

    def run(self) -> None:
        """Declare everything; refusals are collected."""
        for step in (self._shell, self._top, self._function, self._table_of_functions):
            for node in self.module.tree.body:
                try:
                    step(node)
                except SubsetError as error:
                    self.errors.append(error)

    def _shell(self, node: ast.stmt) -> None:
        """Name the structs first: they may point to each other."""
        if isinstance(node, ast.ClassDef) and _decorators(node) & {"struct", "union"}:
            self._struct(node)

    # -- types ---------------------------------------------------------------------------------------------------------------
    def kind(self, node: ast.expr) -> Type:
        """The type that an annotation names."""
        match node:
            case ast.Constant(value=None):
                return NONE
            case ast.Constant(value=str() as text):
                return self.kind(ast.copy_location(ast.parse(text, mode="eval").body, node))
            case ast.BinOp(op=ast.BitOr()):
                base = self.kind(node.left)
                if not isinstance(base, Ref) or self.kind(node.right) != NONE:
                    raise self.refuse(node, f"{ast.unparse(node)} is no type of the subset", "S | None for a nullable pointer")
                return Ref(base.struct, True)
            case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, count])):
                if not isinstance(inner, ast.Subscript) or not isinstance(inner.value, ast.Name) or inner.value.id != "list":
                    raise self.refuse(node, "an array is Annotated[list[T], N]")
                number = self.value(count).const
                if not isinstance(number, int) or number <= 0:
                    raise self.refuse(node, "the size of an array is a positive constant")
                return Arr(self.kind(inner.slice), number)
        entity = self.entity(node) if isinstance(node, (ast.Name, ast.Attribute)) else None
        match entity:
            case TypeName(found):
                return found
            case Builtin("NoReturn"):
                return NORETURN
            case Builtin("bool"):
                return BOOL
            case Builtin("str"):
                return TEXT
        instead = {"int": "u8 ... u64, i32, i64", "list": "Annotated[list[T], N]", "bytes": "Annotated[list[u8], N]"}
        raise self.refuse(node, f"{ast.unparse(node)} is no type of the subset", instead.get(ast.unparse(node), "see docs/subset.md"))

    def _struct(self, node: ast.ClassDef) -> None:
        options: dict[str, int] = {}
        union = "union" in _decorators(node)
        for decorator in node.decorator_list:
            for word in decorator.keywords if isinstance(decorator, ast.Call) else []:
                value = self.value(word.value).const
                if word.arg not in ("packed", "align") or not isinstance(value, int):
                    raise self.refuse(node, "options of @struct", "packed=True, align=4096")
                options[word.arg] = int(value)
        struct = Struct(self.module.name, node.name, bool(options.get("packed")), options.get("align", 1), union, node)
        self.module.names[node.name] = TypeName(Ref(struct))

    def resolve_fields(self, struct: Struct) -> None:
        """Fill in the fields of a struct and lay it out, after the structs it holds."""
        if struct.state == "done" or struct.module != self.module.name:
            return
        if struct.state == "busy":
            raise self.refuse(struct.node, f"{struct.name} contains itself", "S | None is a pointer")
        struct.state = "busy"
        for node in struct.node.body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                continue
            if not isinstance(node, ast.AnnAssign) or node.value is not None or not isinstance(node.target, ast.Name):
                raise self.refuse(node, "a struct has annotated fields only", "functions stand beside it, values are assigned")
            kind = self.kind(node.annotation)
            element = kind
            while isinstance(element, Arr):
                element = element.element
            if is_struct_value(element):
                self.resolve_fields(element.struct)  # type: ignore[union-attr]
            struct.fields[node.target.id] = kind
        if not struct.fields:
            raise self.refuse(struct.node, f"{struct.name} has no fields")
        lay_out(struct)
        struct.state = "done"

    # -- top level -------------------------------------------------------------------------------------------------------------
    def _top(self, node: ast.stmt) -> None:
        match node:
            case ast.Import():
                raise self.refuse(node, "import m is not in the subset", "from m import f, or from package import m")
            case ast.ImportFrom():
                self._import(node)
            case ast.ClassDef():
                known = self.module.names.get(node.name)
                if isinstance(known, TypeName) and isinstance(known.type, Ref):
                    self.resolve_fields(known.type.struct)
                else:
                    self._enum(node)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self._final(node, name, value)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id="NewType"), args=[_, base])):
                kind = self.kind(base)
                if not isinstance(kind, Int):
                    raise self.refuse(node, "NewType is over a width", 'NewType("Gpa", u64)')
                self.module.names[name] = TypeName(NewInt(self.module.name, name, kind))
            case ast.Expr(value=ast.Constant(value=str())) | ast.FunctionDef() | ast.Pass():
                pass
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass
            case _ if not self.module.external:
                raise self.refuse(node, f"{type(node).__name__} at module level", "constants, structs, enums, tables, functions")

    def _import(self, node: ast.ImportFrom) -> None:
        if node.module is None or node.level:
            raise self.refuse(node, "relative import", "the full name of the module")
        for alias in node.names:
            bound = alias.asname or alias.name
            if node.module == LANG and alias.name in WIDTHS:
                self.module.names[bound] = TypeName(WIDTHS[alias.name])
            elif node.module in _OUTSIDE:
                self.module.names[bound] = Builtin(alias.name)
            elif (inner := self.program.modules.get(f"{node.module}.{alias.name}")) is not None:
                self.module.names[bound] = inner
            elif not (self.module.external and node.module not in self.program.modules):
                source = self.program.modules[node.module]
                if alias.name not in source.names:
                    raise self.refuse(node, f"{node.module} has no {alias.name}")
                self.module.names[bound] = source.names[alias.name]

    def _enum(self, node: ast.ClassDef) -> None:
        bases = {ast.unparse(base) for base in node.bases}
        if len(bases) != 1 or not bases <= {"IntEnum", "IntFlag"} or node.decorator_list:
            raise self.refuse(node, f"class {node.name}", "@struct, @union, IntEnum, IntFlag; no other classes")
        kind = Enum(self.module.name, node.name, {}, bases == {"IntFlag"})
        self.module.names[node.name] = TypeName(kind)
        inner = Declarations(self.program, Module(self.module.name, self.module.path, self.module.relative, self.module.tree,
                                                  self.module.lines, dict(self.module.names)))
        for part in node.body:
            if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant):
                continue
            if not isinstance(part, ast.Assign) or not isinstance(part.targets[0], ast.Name):
                raise self.refuse(part, "an enum has members only", "NAME = number")
            value = inner.value(part.value).const
            if not isinstance(value, int) or not 0 <= value < 1 << 32:
                raise self.refuse(part, "a member is a constant of 32 bits")
            kind.members[part.targets[0].id] = value
            inner.module.names[part.targets[0].id] = Constant(constant(value, kind))

    def _final(self, node: ast.AnnAssign, name: str, value: ast.expr) -> None:
        kind = self._final_type(node)
        call = self.entity(value.func) if isinstance(value, ast.Call) else None
        symbol = f"{self.module.prefix}__{name}"
        if isinstance(value, ast.Tuple):
            return
        if isinstance(value, ast.List) or (isinstance(value, ast.BinOp) and isinstance(value.left, ast.List)):
            if not isinstance(kind, Arr):
                raise self.refuse(node, "a table needs its type", "NAME: Final[Annotated[list[u16], 4]] = [...]")
            self.module.names[name] = ConstTable(symbol, kind, self._table(value, kind), node.lineno)
        elif isinstance(call, TypeName) and isinstance(call.type, Ref) and isinstance(value, ast.Call) and not value.args:
            self.module.names[name] = Global(symbol, call.type, node.lineno)
        elif isinstance(call, Builtin) and call.name == "array" and isinstance(value, ast.Call) and len(value.args) == 2:
            count = self.value(value.args[1]).const
            if not isinstance(count, int):
                raise self.refuse(node, "array() wants a constant")
            self.module.names[name] = Global(symbol, Arr(self.kind(value.args[0]), count), node.lineno)
        else:
            self._constant(node, name, value, kind)

    def _constant(self, node: ast.AnnAssign, name: str, value: ast.expr, kind: Type | None) -> None:
        found = self.program.options.get(name) if self.module.name == OPTIONS else None
        result = constant(found, BOOL if isinstance(found, bool) else LITERAL) if found is not None else self.value(value)
        if result.const is None:
            raise self.refuse(node, f"{name} is no constant", "constants, tables, S(), array(T, N)")
        if kind is not None:
            self.store(node, result, kind, name)
            result = constant(result.const, kind)
        self.module.names[name] = Constant(result)

    def _final_type(self, node: ast.AnnAssign) -> Type | None:
        annotation = node.annotation
        if isinstance(annotation, ast.Name) and annotation.id == "Final":
            return None
        if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name) and annotation.value.id == "Final":
            return self.kind(annotation.slice)
        raise self.refuse(node, "a global is Final", "NAME: Final = ...; what changes is a field of a struct")

    def _table(self, node: ast.expr, kind: Type) -> list[Value]:
        if isinstance(kind, Arr):
            parts = self._repeated(node, kind.count)
            return [element for part in parts for element in self._table(part, kind.element)]
        value = self.value(node)
        if value.const is None:
            raise self.refuse(node, "an element of a table is a constant")
        self.store(node, value, kind, "an element")
        return [constant(value.const, kind)]

    def _repeated(self, node: ast.expr, count: int) -> list[ast.expr]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.List):
            number = self.value(node.right).const
            parts = node.left.elts * (number if isinstance(number, int) else 0)
        elif isinstance(node, ast.List):
            parts = node.elts
        else:
            raise self.refuse(node, "a table is a list of constants")
        if len(parts) != count:
            raise self.refuse(node, f"{len(parts)} elements for {count}")
        return parts

    # -- functions -------------------------------------------------------------------------------------------------------------
    def _function(self, node: ast.stmt) -> None:
        if not isinstance(node, ast.FunctionDef):
            return
        arguments = node.args
        apart = [ast.unparse(decorator) for decorator in node.decorator_list] == ["apart"]
        if (node.decorator_list and not apart) or arguments.defaults or arguments.kw_defaults or arguments.vararg or arguments.kwarg \
                or arguments.posonlyargs or arguments.kwonlyargs:
            raise self.refuse(node, "decorators but apart, defaults and *args are not in the subset", "plain parameters")
        if getattr(node, "type_params", None):
            raise self.refuse(node, "generic functions are not in the subset", "one function a type")
        params = []
        for argument in arguments.args:
            if argument.annotation is None:
                raise self.refuse(argument, f"parameter {argument.arg} has no type")
            params.append((argument.arg, self.kind(argument.annotation)))
        if node.returns is None:
            raise self.refuse(node, f"{node.name}() has no result type", "-> None")
        result = self.kind(node.returns)
        if isinstance(result, Arr):
            raise self.refuse(node, "an array is no result", "fill one that the caller gives")
        symbol = f"{self.module.prefix}__{node.name}"
        if self.module.external and symbol not in self.program.native_text:
            symbol = node.name
        self.module.names[node.name] = Function(self.module.name, node.name, symbol, params, result, node, self.module.external,
                                                 apart)

    def _table_of_functions(self, node: ast.stmt) -> None:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Tuple) or not isinstance(node.target, ast.Name):
            return
        functions: list[Function] = []
        for part in node.value.elts:
            entity = self.entity(part)
            if not isinstance(entity, Function):
                raise self.refuse(node, f"{ast.unparse(part)} is no function", "a table of functions; lists hold constants")
            functions.append(entity)
            if [kind for _, kind in entity.params] != [kind for _, kind in functions[0].params] \
                    or entity.result != functions[0].result:
                raise self.refuse(node, f"{entity.name} has another signature than {functions[0].name}")
        if not functions:
            raise self.refuse(node, "an empty table")
        name = node.target.id
        self.module.names[name] = FunctionTable(f"{self.module.prefix}__{name}", functions, node.lineno)


class Program:
    """All modules of one image."""

    def __init__(self, root: Path, names: list[str], options: dict[str, bool | int], native_text: str) -> None:
        self.root, self.options, self.native_text = root, options, native_text
        self.modules: dict[str, Module] = {}
        self.order: list[Module] = []
        self.errors: list[SubsetError] = []
        self._loading: list[str] = []
        for name in names:
            self._load(name, None)

    def _path(self, name: str) -> Path | None:
        base = self.root.joinpath(*name.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
        return None

    def _load(self, name: str, asked: SubsetError | None) -> Module | None:
        if name in self._loading:
            cycle = " -> ".join([*self._loading[self._loading.index(name):], name])
            raise SubsetError(asked.path if asked else "?", asked.line if asked else 0, f"import cycle {cycle}",
                              "move what both need into a leaf module")
        if name in self.modules:
            return self.modules[name]
        path = self._path(name)
        if path is None:
            raise asked or SubsetError(name, 0, "no such module")
        text = path.read_text()
        relative = str(path.relative_to(self.root))
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            raise SubsetError(relative, error.lineno or 0, f"syntax: {error.msg}") from error
        module = Module(name, path, relative, tree, text.split("\n"), package=path.name == "__init__.py")
        self._loading.append(name)
        self._load_imports(module)
        self._loading.pop()
        self.modules[name] = module
        self.order.append(module)
        return module

    def _load_imports(self, module: Module) -> None:
        wanted: list[tuple[ast.AST, str]] = []
        for node in module.tree.body:
            if isinstance(node, ast.ImportFrom) and node.module is not None and node.module not in _OUTSIDE:
                if not node.module.startswith(("hypervisor", "guest_pv_drivers", "tests")):
                    raise module.error(node, f"{node.module} is outside the freestanding code", "only hypervisor.* is imported")
                inner = [f"{node.module}.{alias.name}" for alias in node.names if self._path(f"{node.module}.{alias.name}")]
                wanted += [(node, name) for name in inner]
                if len(inner) < len(node.names):
                    wanted.append((node, node.module))
        if not module.external and module.name != FORMAT and any(isinstance(node, ast.JoinedStr) for node in ast.walk(module.tree)):
            wanted.append((module.tree, FORMAT))
        if module.external:  # its bodies are for CPython only
            wanted = [(node, name) for node, name in wanted if ".fake" not in name]
        for place, name in wanted:
            found = self._load(name, module.error(place, f"no module {name}"))
            if found is not None and found not in module.imports:
                module.imports.append(found)

    def declare(self) -> None:
        """Declare the modules in the order of their imports."""
        for module in self.order:
            declarations = Declarations(self, module)
            declarations.run()
            self.errors += declarations.errors

    def resolve(self, module: Module, node: ast.expr) -> Type:
        """The type an annotation inside a function names."""
        return Declarations(self, module).kind(node)

    def functions(self, module: Module) -> list[Function]:
        """The functions that a module defines."""
        return [entity for entity in module.names.values() if isinstance(entity, Function) and entity.module == module.name]


def _decorators(node: ast.ClassDef) -> set[str]:
    return {ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator) for decorator in node.decorator_list}
