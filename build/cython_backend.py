"""The back end: lets Cython translate function bodies to C, and writes only types, declarations and functions.

Cython's own module initialisation, its runtime and Python.h are never written. What would need them is found by
`_leaks` and reported at the Python line that asked for it.
"""
from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from Cython.Compiler import Code as _code
from Cython.Compiler import Errors, Naming
from Cython.Compiler import Main as _main
from Cython.Compiler import ModuleNode as _module_node
from Cython.Compiler import Nodes as _nodes
from Cython.Compiler import Options as _options
from Cython.Compiler import Symtab as _symtab

# Cython's own types are partly wrong and mostly missing.
Code: Any = _code
Main: Any = _main
ModuleNode: Any = _module_node
Nodes: Any = _nodes
Options: Any = _options
Symtab: Any = _symtab

_RUNTIME = re.compile(r"\b(Py[A-Z_]\w*|__Pyx_(?!PACKED)\w+|__PYX_ERR)\b")
_LINE = re.compile(r'^\s*#line (\d+) "(.*)"')
# Declarations of structs and arrays on the stack: the front end clears each where the source makes it.
_STORAGE = re.compile(r"^  (?:CYTHON_UNUSED )?((?:struct |union )\w+ \w+|\w+ \w+(?:\[\d+\])+)$", re.M)
_PARTS = ("h_code", "utility_code_proto_before_types", "numeric_typedefs", "type_declarations", "module_declarations",
          "string_decls", "module_code")


class BackendError(Exception):
    """What Cython refused, or Python runtime in its output; each line is `file:line: message`."""


def _leaks(text: str) -> list[str]:
    found, place = [], "?:0"
    for line in text.splitlines():
        if directive := _LINE.match(line):
            place = f"{directive[2]}:{directive[1]}"
        elif name := _RUNTIME.search(re.sub(r"/\*.*?\*/", "", line)):
            found.append(f"{place}: needs the Python runtime ({name[1]}): not in the subset, see docs/subset.md")
    return list(dict.fromkeys(found))


# Line buffers of f-strings start empty by format.begin: zeroing them would be paid on every path, also where nothing is said.
_LINE_BUFFER = re.compile(r"^( +)(struct hypervisor_format__Line line__\d+)", re.M)


def _write_module(self: Any, env: Any, options: Any, result: Any) -> None:
    state = Code.GlobalState(Code.CCodeWriter(), self, code_config=ModuleNode.generate_c_code_config(env, options),
                             common_utility_include_dir=None)
    state.initialize_main_c_code()
    state.module_pos = self.pos
    state.directives = self.directives
    self.body.generate_function_definitions(env, state["module_code"])
    self.generate_includes(env, self.referenced_modules, state["h_code"], early=True)
    self.generate_declarations_for_modules(env, self.referenced_modules, state)
    for constant in state.string_const_index.values():
        if constant.c_used:
            state["string_decls"].putln(f'static const char {constant.cname}[] = "{constant.escaped_value}";')
    text = '#include "prelude.h"\n' + "".join(state.parts[part].getvalue() for part in _PARTS)
    text = _LINE_BUFFER.sub(r"\1__attribute__((uninitialized)) \2", text)
    leaks = _leaks(state.parts["module_code"].getvalue())
    if leaks or state.utility_codes:
        raise BackendError("\n".join(leaks) or f"{self.full_module_name}: needs {state.utility_codes}")
    Path(result.c_file).write_text(_STORAGE.sub(r"  KRAIT_STORAGE \1", text))
    result.c_file_generated = 1


def _declare_variables(self: Any, env: Any, code: Any, here: bool) -> None:
    """Nothing: globals are declared in the generated headers."""


def _declare_functions(self: Any, env: Any, code: Any, here: bool) -> None:
    """Nothing: prototypes are in the generated headers."""


_plain_header = Nodes.CFuncDefNode.generate_function_header


def _function_header(self: Any, code: Any, *args: Any, **kwargs: Any) -> Any:
    """Functions have external linkage; the link drops the ones nobody calls."""
    visibility = self.entry.visibility
    self.entry.visibility = "public"
    try:
        return _plain_header(self, code, *args, **kwargs)
    finally:
        self.entry.visibility = visibility


_plain_scope = Symtab.ModuleScope.__init__


def _module_scope(self: Any, *args: Any, **kwargs: Any) -> None:
    _plain_scope(self, *args, **kwargs)
    self.scope_prefix = self.qualified_name.replace(".", "_") + "__"


def install() -> None:
    """Put this back end into the Cython of this process."""
    Naming.func_prefix = Naming.enum_prefix = Naming.type_prefix = Naming.var_prefix = ""
    Symtab.ModuleScope.__init__ = _module_scope
    ModuleNode.ModuleNode.generate_c_code = _write_module
    ModuleNode.ModuleNode.generate_cvariable_declarations = _declare_variables
    ModuleNode.ModuleNode.generate_cfunction_declarations = _declare_functions
    Nodes.CFuncDefNode.generate_function_header = _function_header


def translate(source: Path, target: Path, module: str) -> None:
    """Translate `source` (.py' with its .pxd beside it) to the C file `target`; BackendError if refused."""
    directives = {"cdivision": True, "boundscheck": False, "wraparound": False, "initializedcheck": False,
                  "infer_types": True}
    options = Options.CompilationOptions(Options.default_options, output_file=str(target), emit_linenums=True,
                                         language_level=3, compiler_directives=directives)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            result = Main.compile_single(str(source), options, full_module_name=module)
        except Errors.CompileError as error:
            raise BackendError(_messages(said.getvalue()) or str(error)) from error
    if result.num_errors:
        raise BackendError(_messages(said.getvalue()))


def _messages(text: str) -> str:
    """The first message for each line of the source; what follows on a line is a consequence."""
    first: dict[str, str] = {}
    for message in re.findall(r"^\S+:\d+:\d+: .*$", text, re.M):
        first.setdefault(message.rsplit(":", 2)[0], message)
    return "\n".join(f"{message} (from Cython)" for message in first.values())
