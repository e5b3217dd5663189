"""From modules of the subset to C: runs the front end over a whole program and writes what Cython and gcc read."""
from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import emit_c
from entities import Function, Module
from expressions import Uses
from functions import FunctionWriter
from program import FORMAT, Program
from subset_types import SubsetError


class Refused(Exception):
    """The program is outside the subset; one line each."""

    def __init__(self, errors: list[SubsetError]) -> None:
        super().__init__("\n".join(dict.fromkeys(map(str, sorted(errors, key=lambda error: (error.path, error.line))))))
        self.errors = errors


@dataclass
class Unit:
    """What one module becomes: texts by the suffix of their file."""

    module: Module
    header: str
    tail: str
    source: str = ""
    declarations: str = ""
    functions: list[Function] = field(default_factory=list)
    links: set[str] = field(default_factory=set)


@dataclass
class Native:
    """Hand-written C headers and assembly beside the modules."""

    headers: dict[str, str]  # module name -> text of intrinsics.h
    assembly: list[Path]
    text: str

    @staticmethod
    def find(root: Path, folders: list[str]) -> Native:
        """All assembly below the folders, and the header beside each module called intrinsics."""
        assembly = sorted(path for folder in folders for path in (root / folder).rglob("*.S"))
        headers = {str(path.relative_to(root).with_suffix("")).replace("/", "."): _preprocessed(path)
                   for folder in ("hypervisor", *folders) for path in (root / folder).rglob("intrinsics.h")}
        text = "\n".join([*headers.values(), *(path.read_text() for path in assembly)])
        return Native(headers, assembly, text)

    def called_modules(self, folder: Path, root: Path) -> list[str]:
        """The modules whose functions assembly calls by their C names."""
        text = "\n".join(path.read_text() for path in self.assembly)
        prefixes = {match[1] for match in re.finditer(r"\b([a-z]\w*?)__[a-z]\w*", text)}
        found = []
        for path in sorted(folder.rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            if name.replace(".", "_") in prefixes and not name.endswith("intrinsics"):
                found.append(name)
        return found

    def symbols(self) -> set[str]:
        """Every name that assembly mentions: such functions stay visible."""
        return {name for path in self.assembly for name in re.findall(r"\w+", path.read_text())}


def _preprocessed(path: Path) -> str:
    """A C header with its macros expanded, where the names of its functions are seen."""
    prelude = Path(__file__).with_name("prelude.h")
    return subprocess.run(["gcc", "-E", "-P", "-include", str(prelude), str(path)], capture_output=True, text=True,
                          check=True).stdout


def compile_program(root: Path, names: list[str], options: dict[str, bool | int], native: Native) -> list[Unit]:
    """Translate the modules `names` and all they import; Refused if something is outside the subset."""
    try:
        program = Program(root, names, options, native.text)
    except SubsetError as error:
        raise Refused([error]) from error
    program.declare()
    if program.errors:
        raise Refused(program.errors)
    units = [_unit(program, module, native) for module in program.order]
    errors = program.errors or _recursion([function for unit in units for function in unit.functions], program)
    if errors:
        raise Refused(errors)
    return units


def _unit(program: Program, module: Module, native: Native) -> Unit:
    code = native.headers.get(module.name, "")
    name = str(Path(module.relative).with_suffix(".h")) if code else ""
    unit = Unit(module, emit_c.header(module, name, code, native.symbols()), emit_c.tail(module))
    if module.external:
        return unit
    uses, lines, written = Uses(), [""] * len(module.lines), []
    formatter = program.modules.get(FORMAT)
    for function in program.functions(module):
        writer = FunctionWriter(module, uses, function, lines, program.resolve, formatter)
        try:
            writer.write()
        except SubsetError as error:
            writer.errors.append(error)
        program.errors += writer.errors
        written.append(writer)
        unit.functions.append(function)
    if written:
        blank = lines.index("")
        lines[blank] = "import cython"
        unit.source = "\n".join(lines) + "\n"
        unit.declarations = emit_c.declarations(module, uses, written)
        unit.links = uses.links
    return unit


def _recursion(functions: list[Function], program: Program) -> list[SubsetError]:
    """Refuse functions that can call themselves."""
    known = {function.symbol: function for function in functions}
    done: set[str] = set()
    errors: list[SubsetError] = []

    def visit(symbol: str, path: list[str]) -> None:
        if symbol in path:
            cycle = " -> ".join(known[name].name for name in [*path[path.index(symbol):], symbol])
            module = program.modules[known[symbol].module]
            errors.append(module.error(known[symbol].node, f"recursion {cycle}", "a loop; the stack is bounded"))
        elif symbol in known and symbol not in done:
            for callee in sorted(known[symbol].calls):
                visit(callee, [*path, symbol])
            done.add(symbol)

    for function in functions:
        visit(function.symbol, [])
    return errors
