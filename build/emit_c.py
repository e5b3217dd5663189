"""Writes what stands around the function bodies: C headers, tables and storage, and Cython's declaration files."""
from __future__ import annotations

from pathlib import PurePosixPath

from entities import ConstTable, Function, FunctionTable, Global, Module, TypeName, Value
from expressions import Uses
from functions import FunctionWriter
from subset_types import NONE, NORETURN, Arr, Ref, Struct, Type, c_name, c_type, declarator, flat_element, is_struct_value

_PRELUDE = """cimport cython
cdef extern from "prelude.h" nogil:
    ctypedef unsigned short u8  # prelude.h has the truth; Cython takes arrays of char for Python's bytes
    ctypedef unsigned short u16
    ctypedef unsigned int u32
    ctypedef unsigned long long u64
    ctypedef int i32
    ctypedef long long i64
    ctypedef bint krait_bool
    ctypedef const char *krait_text
    void krait_check(krait_bool ok) noexcept
    void krait_trap() noexcept
    void krait_copy(void *to, const void *source, u64 size) noexcept
    void krait_clear(void *to, u64 size) noexcept
    u64 krait_index(u64 index, u64 count) noexcept
    u64 krait_steps(u64 start, u64 stop, u64 step) noexcept
    u8 krait_char_at(krait_text text, u64 index) noexcept
    u64 krait_text_address(krait_text text) noexcept
    u64 krait_add(u64 a, u64 b) noexcept
    u64 krait_sub(u64 a, u64 b) noexcept
    u64 krait_mul(u64 a, u64 b) noexcept
    u64 krait_shl(u64 a, u64 b) noexcept
    u64 krait_min_u64(u64 a, u64 b) noexcept
    u64 krait_max_u64(u64 a, u64 b) noexcept
    i64 krait_min_i64(i64 a, i64 b) noexcept
    i64 krait_max_i64(i64 a, i64 b) noexcept
"""


def header_name(module: Module) -> str:
    """The path of the generated header, relative to the output directory."""
    return str(PurePosixPath(*module.name.split("."))) + ".gen.h"


def structs_of(module: Module) -> list[Struct]:
    """The structs a module defines, those contained by value first."""
    ordered: list[Struct] = []

    def visit(struct: Struct) -> None:
        if struct.module != module.name or struct in ordered:
            return
        for kind in struct.fields.values():
            element = flat_element(kind)
            if isinstance(element, Ref) and not element.nullable:
                visit(element.struct)
        ordered.append(struct)

    for entity in module.names.values():
        if isinstance(entity, TypeName) and isinstance(entity.type, Ref):
            visit(entity.type.struct)
    return ordered


def _keyword(struct: Struct) -> str:
    return "union" if struct.union else "struct"


def _prototype(function: Function, visible: set[str]) -> str:
    params = ", ".join(c_type(kind) for _, kind in function.params) or "void"
    attributes = " __attribute__((noreturn))" if function.result == NORETURN else ""
    attributes += " __attribute__((noinline))" if function.apart else ""
    attributes += " __attribute__((externally_visible))" if function.symbol in visible else ""
    return f"{c_type(function.result)} {function.symbol}({params}){attributes};"


def header(module: Module, native_header: str, native_code: str, visible: set[str]) -> str:
    """The C header of a module: its structs, checked against our layout, its storage and prototypes."""
    lines = ["#pragma once", '#include "prelude.h"']
    lines += [f'#include "{header_name(imported)}"' for imported in module.imports]
    structs = structs_of(module)
    lines += [f"typedef {_keyword(struct)} {struct.c_name} {struct.c_name}, *{struct.c_name}_p;" for struct in structs]
    for struct in structs:
        attributes = ("packed, " if struct.packed else "") + f"aligned({struct.align})"
        lines.append(f"{_keyword(struct)} __attribute__(({attributes})) {struct.c_name} {{")
        lines += [f"    {declarator(kind, c_name(name))};" for name, kind in struct.fields.items()]
        lines += ["};", f"_Static_assert(sizeof({struct.c_name}) == {struct.size}, \"{struct.name}\");"]
        lines += [f"_Static_assert(__builtin_offsetof({struct.c_name}, {c_name(name)}) == {offset}, \"{struct.name}.{name}\");"
                  for name, offset in struct.offsets.items()]
    if native_header:
        lines.append(f'#include "{native_header}"')
    for entity in own(module):
        match entity:
            case ConstTable(symbol, kind):
                lines.append(f"extern const {declarator(kind, symbol)};")
            case Global(symbol, kind):
                lines.append(f"extern {declarator(kind, symbol)};")
            case FunctionTable(symbol, functions):
                lines.append(f"{c_type(functions[0].result)} {symbol}({_switch_params(functions[0])});")
            case Function() if f"{entity.symbol}(" not in native_code:
                lines.append(_prototype(entity, visible))
    return "\n".join(lines) + "\n"


def own(module: Module) -> list[ConstTable | Global | FunctionTable | Function]:
    """The entities with a C symbol that the module defines itself."""
    return [entity for entity in module.names.values()
            if isinstance(entity, (ConstTable, Global, FunctionTable)) and entity.symbol.startswith(f"{module.prefix}__")
            or isinstance(entity, Function) and entity.module == module.name]


def _switch_params(function: Function) -> str:
    return ", ".join(["u64 index", *(f"{c_type(kind)} a{number}" for number, (_, kind) in enumerate(function.params))])


def _c_constant(value: Value) -> str:
    if isinstance(value.const, str):
        return '"' + "".join(char if char.isalnum() or char in " _-+.,:;()/*#<>=!@" else f"\\{ord(char):03o}"
                             for char in value.const) + '"'
    assert value.const is not None
    return f"{int(value.const)}{'ULL' if value.const > 0x7FFFFFFF else ''}" if value.const > -(1 << 31) else \
        f"((i64){int(value.const) & ((1 << 64) - 1)}ULL)"


def _initializer(values: list[Value], kind: Type) -> str:
    if not isinstance(kind, Arr):
        return _c_constant(values[0])
    size = len(values) // kind.count
    return "{" + ", ".join(_initializer(values[i * size:(i + 1) * size], kind.element) for i in range(kind.count)) + "}"


def tail(module: Module) -> str:
    """The C definitions of a module's tables, storage and switches."""
    lines = []
    for entity in own(module):
        if isinstance(entity, Function):
            continue
        lines.append(f'#line {entity.line} "{module.relative}"')
        match entity:
            case ConstTable(symbol, kind, values):
                lines.append(f"const {declarator(kind, symbol)} = {_initializer(values, kind)};")
            case Global(symbol, kind):
                lines.append(f"{declarator(kind, symbol)};")
            case FunctionTable(symbol, functions):
                lines.append(_switch(symbol, functions))
    return "\n".join(lines) + "\n" if lines else ""


def _switch(symbol: str, functions: list[Function]) -> str:
    """A table of functions. Inlined, so that the registers and buffers which one function needs cost the others nothing."""
    first = functions[0]
    arguments = ", ".join(f"a{number}" for number in range(len(first.params)))
    call = "{0}({1}); return;" if first.result in (NONE, NORETURN) else "return {0}({1});"
    cases = " ".join(f"case {number}: " + call.format(function.symbol, arguments) for number, function in enumerate(functions))
    return (f"__attribute__((always_inline)) inline {c_type(first.result)} {symbol}({_switch_params(first)}) "
            f"{{ switch (index) {{ {cases} default: krait_trap(); }} }}")


def declarations(module: Module, uses: Uses, written: list[FunctionWriter]) -> str:
    """Cython's declaration file of a module: what its functions use, and their signatures and locals."""
    text = [_PRELUDE, f'cdef extern from "{header_name(module)}" nogil:']
    structs = _used_structs(uses)
    text += [f"    cdef {_keyword(struct)} {struct.c_name}" for struct in structs]
    text += [f"    ctypedef {struct.c_name} *{struct.c_name}_p" for struct in structs]
    for struct in structs:
        text.append(f"    cdef {_keyword(struct)} {struct.c_name}:")
        fields = sorted(uses.fields.get(struct, ()))
        text += [f"        {declarator(struct.fields[name], c_name(name))}" for name in fields] or ["        pass"]
    for function in uses.functions.values():
        if function.module != module.name or function.external:
            params = ", ".join(c_type(kind) for _, kind in function.params)
            text.append(f"    {c_type(function.result)} {function.symbol}({params}) noexcept")
    for storage in uses.storage.values():
        const = "const " if isinstance(storage, ConstTable) else ""
        text.append(f"    {const}{declarator(storage.type, storage.symbol)}")
    for table in uses.tables.values():
        text.append(f"    {c_type(table.functions[0].result)} {table.symbol}({_switch_params(table.functions[0])}) noexcept")
    text.append("    pass")
    if uses.links:
        text += ["cdef extern from *:", '    """', *(f"    extern const char {name}[];" for name in sorted(uses.links)), '    """']
        text += [f'    const char krait_link_{name} "{name}" [1]' for name in sorted(uses.links)]
    for writer in written:
        function = writer.function
        if writer.declared:
            text.append(f"@cython.locals({', '.join(f'{name}={_local_type(kind)}' for name, kind in writer.declared.items())})")
        params = ", ".join(c_type(kind) for _, kind in function.params)
        text.append(f"cdef {c_type(function.result)} {function.name}({params}) noexcept nogil")
    return "\n".join(text) + "\n"


def _local_type(kind: str) -> str:
    return f'"{kind}"' if "*" in kind else kind


def _used_structs(uses: Uses) -> list[Struct]:
    ordered: list[Struct] = []

    def visit(struct: Struct) -> None:
        if struct in ordered:
            return
        pointed: list[Struct] = []
        for name in sorted(uses.fields.get(struct, ())):
            element = flat_element(struct.fields[name])
            if isinstance(element, Ref):
                (visit if is_struct_value(element) else pointed.append)(element.struct)
        ordered.append(struct)
        for other in pointed:
            visit(other)

    for struct in list(uses.fields):
        visit(struct)
    for storage in uses.storage.values():
        element = flat_element(storage.type)
        if isinstance(element, Ref):
            visit(element.struct)
    for function in uses.functions.values():
        for kind in (function.result, *(kind for _, kind in function.params)):
            element = flat_element(kind)
            if isinstance(element, Ref):
                visit(element.struct)
    return ordered
