"""Builds modules of the subset as a shared library for the host: fast simulation, sanitizers, differential tests.

Intrinsics become hooks: `krait_hook__NAME` is a function pointer that the host sets. Without a hook, what needs no
privilege runs for real and everything else ends the process with its name.
"""
from __future__ import annotations

import json
import re
from pathlib import Path

import layouts
from compiler import Native, Unit, compile_program
from emit_c import header_name
from entities import Function, Module
from subset_types import NONE, NORETURN, c_type
from toolchain import Stage, Toolchain, run, write

LIBRARY = "libkrait.so"
_HARMLESS = re.compile(r"(rep (movs|stos)[bwlq]|mov %\d, %\d|pause|rdtsc|cpuid|[ml]fence|sfence|)$")
_PLAIN = ["-std=gnu11", "-g", "-gdwarf-4", "-fPIC", "-fno-strict-aliasing", "-Ulinux", "-Uunix", "-DKRAIT_HOST", "-Wall",
          "-Wno-unused-variable", "-Wno-unused-but-set-variable", "-Wno-unused-label", "-Wno-unused-function"]
_GCC = [*_PLAIN, "-O2", "-fno-peephole2", "-fwrapv", "-Werror=maybe-uninitialized", "-Wno-builtin-declaration-mismatch"]
_CLANG = [*_PLAIN, "-O1", "-fno-omit-frame-pointer", "-shared-libasan", "-Wno-tautological-compare", "-Wno-parentheses-equality",
          "-fsanitize=address,undefined,unsigned-integer-overflow,implicit-conversion", "-fno-sanitize-recover=all",
          "-fno-sanitize=function,vptr"]


def build(root: Path, names: list[str], out: Path, sanitize: bool) -> Path:
    """Build the library with its layouts.json beside it; the library's path."""
    compiler, flags = ("clang", _CLANG) if sanitize else ("gcc", _GCC)
    tools = Toolchain(root, out / "hostlib")
    with Stage("front end"):
        native = Native.find(root, [])
        units = compile_program(root, names, {}, Native({}, [], native.text))
    write(out / "layouts.json", json.dumps(layouts.export([unit.module for unit in units]), indent=1))
    with Stage("cython"):
        sources = tools.translate(units)
        host = tools.directory / "host.c"
        write(host, _host_source(units, native))
    with Stage(compiler):
        objects = tools.objects([*sources, host], compiler, flags)
    with Stage("link"):
        library = out / LIBRARY
        run([compiler, *flags, "-shared", *map(str, objects), "-o", str(library)], tools.directory)
    return library


def _host_source(units: list[Unit], native: Native) -> str:
    lines = ['#include "prelude.h"', "#include <stdio.h>", "#include <stdlib.h>",
             "void krait_host_trap(const char *file, int line) { fprintf(stderr, \"%s:%d: trap\\n\", file, line); abort(); }",
             "void krait_host_missing(const char *name) { fprintf(stderr, \"intrinsic %s has no hook\\n\", name); abort(); }"]
    links = {name for unit in units for name in unit.links}
    lines += [f"const char {name}[8] __attribute__((weak));" for name in sorted(links)]
    for unit in units:
        if unit.module.external:
            lines += _hooks(unit.module, native.headers.get(unit.module.name, ""))
    return "\n".join(lines) + "\n"


def _hooks(module: Module, code: str) -> list[str]:
    functions = [entity for entity in module.names.values() if isinstance(entity, Function) and entity.module == module.name]
    defined = [function for function in functions if re.search(rf"\b{function.symbol}\s*\(", code)]
    lines = []
    if defined:
        lines += [f"#define {function.symbol} real__{function.symbol}" for function in defined]
        lines.append(f'#include "{Path(module.relative).with_suffix(".h")}"')
        lines += [f"#undef {function.symbol}" for function in defined]
    lines.append(f'#include "{header_name(module)}"')
    for function in functions:
        params = ", ".join(f"{c_type(kind)} {name}_" for name, kind in function.params) or "void"
        arguments = ", ".join(f"{name}_" for name, _ in function.params)
        result = c_type(function.result)
        give = "" if function.result in (NONE, NORETURN) else "return "
        real = f"{give}real__{function.symbol}({arguments});" if function in defined and _harmless(code, function.symbol) else \
            f'krait_host_missing("{function.name}"); __builtin_unreachable();'
        lines += [f"{result} (*krait_hook__{function.name})({params});",
                  f"{result} {function.symbol}({params}) {{ if (krait_hook__{function.name}) {{ "
                  f"{give}krait_hook__{function.name}({arguments}); }} else {{ {real} }} }}"]
    return lines


def _harmless(code: str, symbol: str) -> bool:
    """Whether the C body runs without privilege: no assembly, or copies and fills only."""
    start = re.search(rf"\b{symbol}\s*\([^)]*\)\s*\{{", code)
    if start is None:
        return False
    depth, end = 1, start.end()
    while depth and end < len(code):
        depth += {"{": 1, "}": -1}.get(code[end], 0)
        end += 1
    templates = re.findall(r'asm\s+volatile\s*\(\s*((?:"[^"]*"\s*)+)', code[start.end():end])
    texts = ["".join(re.findall(r'"([^"]*)"', template)) for template in templates]
    return all(_HARMLESS.match(instruction.strip()) for text in texts for instruction in re.split(r"[;\n]|\\n", text))
