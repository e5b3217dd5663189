#!/usr/bin/env python3
"""Builds an image from modules of the subset: `make_image.py hypervisor|guest|hostlib --out DIR`. Progress is on stderr."""
from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

try:
    import Cython  # noqa: F401
except ImportError:
    sys.exit("make_image: Cython is missing; install it: python3 -m pip install cython==3.3.1")

import hostlib
import layouts
import stack_depth
import symbol_table
from compiler import Native, Refused, compile_program
from toolchain import BUILD, METAL, WARNINGS, BuildError, Stage, Toolchain, run, write

ROOT = BUILD.parent


@dataclass
class Image:
    """What an image is made of."""

    main: str
    assembly: str
    script: str
    file: str
    stacks: dict[str, str | int]  # entry point ("" for any) -> bytes of its stack, or the constant that says so


SYMBOLS_STEP = 256  # bytes of room for the table of symbols; less and each change of the code links twice
STACKS = "hypervisor.arch_x86.stacks"
IMAGES = {"hypervisor": Image("hypervisor.main", "hypervisor/arch_x86", "hypervisor.ld", "krait.elf",
                              {"": f"{STACKS}.MAIN_STACK_BYTES", "hypervisor_arch_x86_traps__trap": f"{STACKS}.IST_STACK_BYTES"}),
          "guest": Image("guest_pv_drivers.main", "guest_pv_drivers", "guest.ld", "pv_guest.elf", {"": "guest_pv_drivers.vcpus.STACK_BYTES"})}


def build_image(root: Path, image: Image, out: Path, name: str, release: bool, measure_paths: bool = False) -> Path:
    """Build one freestanding image; the ELF file's path."""
    tools = Toolchain(root, out / name)
    with Stage("front end"):
        native = Native.find(root, [image.assembly])
        names = [image.main, *native.called_modules(root / image.main.split(".")[0], root)]
        units = compile_program(root, names, {"DEBUG": not release, "MEASURE_PATHS": measure_paths}, native)
    exported = layouts.export([unit.module for unit in units])
    write(tools.directory / "layouts.json", json.dumps(exported, indent=1))
    with Stage("cython"):
        sources = tools.translate(units)
    with Stage("gcc"):
        objects = tools.objects(sources, "gcc", [*METAL, *WARNINGS, "-flto"], optimize_cold=True)
        plain = tools.objects(native.assembly, "gcc", METAL)
    elf = out / image.file
    parts = [*objects, *plain]
    made_of = (*(hashlib.sha256(part.read_bytes()).hexdigest() for part in parts),
               *((BUILD / name).read_text() for name in (image.script, "make_image.py", "symbol_table.py")))
    if tools.cache.stale(elf, *made_of):
        link(tools, image, parts, elf, release)
        tools.cache.made(elf, *made_of)
    check_stacks(image, tools, exported["constants"], native.symbols())
    check_symbols(elf)
    print(f"  image {loaded_bytes(elf)} bytes", file=sys.stderr)
    return elf


def loaded_bytes(elf: Path) -> int:
    """Bytes of the image that a loader copies into memory: code, constants, the table of symbols; zeroed memory is not counted."""
    text, data = run(["size", str(elf)]).splitlines()[1].split()[:2]
    return int(text) + int(data)


def link(tools: Toolchain, image: Image, objects: list[Path], elf: Path, release: bool) -> None:
    """Link with room for the table of symbols and lines, as much as the last build needed; then fill it in."""
    room = tools.directory / "symbols.room"
    size = int(room.read_text()) if room.exists() else 16384
    while True:
        with Stage("link"):
            link_with_room(tools, image, objects, elf, size)
        with Stage("symbols"):
            table = symbol_table.table_of(elf, release)
            wanted = -(-len(table) // SYMBOLS_STEP) * SYMBOLS_STEP
            if len(table) <= size <= wanted:
                content = tools.directory / "symbols.bin"
                content.write_bytes(table.ljust(size, b"\0"))
                run(["objcopy", "--update-section", f".symbols={content}", str(elf)])
                return
        size = wanted
        write(room, str(size))


def link_with_room(tools: Toolchain, image: Image, objects: list[Path], elf: Path, size: int) -> None:
    """One link through gcc's linker plugin: it learns what assembly refers to, so all else is local and inlined freely."""
    for old in tools.directory.glob("*.ci"):
        old.unlink()
    source = tools.directory / "symbols.S"
    write(source, f'.section .symbols, "a"\n.skip {size}\n.section .note.GNU-stack, "", @progbits\n')
    run(["gcc", "-c", str(source), "-o", str(tools.directory / "symbols.o")])
    run(["gcc", *METAL, *WARNINGS, "-flto", "-flto-partition=one", "-fcallgraph-info=su", "-dumpdir", f"{tools.directory}/",
         f"-ffile-prefix-map={tools.directory}={tools.root}", "-nostdlib", "-static",
         *(f"-Wl,{option}" for option in ("-z,max-page-size=4096", "-z,noexecstack", "--build-id=none", "--gc-sections",
                                                     "--no-warn-rwx-segments", f"-T,{BUILD / image.script}")),
         *map(str, objects), str(tools.directory / "symbols.o"), "-o", str(elf)], tools.directory)


def check_stacks(image: Image, tools: Toolchain, constants: dict[str, int], named: set[str]) -> None:
    """Print the worst-case stack of each entry point and refuse one above half of its stack; paths go to stacks.txt."""
    report = []
    try:
        depths = stack_depth.entries(stack_depth.read(tools.directory), named)
    except stack_depth.StackError as error:
        raise BuildError(f"stack: {error}") from error
    for depth in depths:
        size = image.stacks.get(depth.entry, image.stacks[""])
        limit = constants[size] if isinstance(size, str) else size
        report.append(f"{depth.entry}: {depth.bytes} of {limit} bytes: {' > '.join(depth.path)}")
        print(f"  stack {depth.entry:<44}{depth.bytes:6} of {limit}", file=sys.stderr)
        if depth.bytes > limit // 2:
            raise BuildError(f"{report[-1]}: more than half of the stack")
    write(tools.directory / "stacks.txt", "\n".join(report) + "\n")


def check_symbols(elf: Path) -> None:
    """The last gate: nothing undefined, nothing of Python's runtime."""
    undefined = run(["nm", "-u", str(elf)]).strip()
    runtime = [line for line in run(["nm", str(elf)]).splitlines() if line.split()[-1].startswith(("Py", "_Py", "__Pyx"))]
    if undefined or runtime:
        elf.unlink()
        raise BuildError(f"{elf.name} has symbols that nothing defines or that are Python's:\n{undefined}\n" + "\n".join(runtime))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", choices=[*IMAGES, "hostlib"])
    parser.add_argument("--out", type=Path, required=True, help="output directory")
    parser.add_argument("--release", action="store_true", help="without debug checks and commands")
    parser.add_argument("--measure-paths", action="store_true", help="count the instructions between returns to the run loop")
    parser.add_argument("--sanitize", action="store_true", help="hostlib: with clang's sanitizers")
    parser.add_argument("--module", action="append", help="hostlib: a module to take in (default: the whole hypervisor)")
    parser.add_argument("--root", type=Path, default=ROOT, help="where the modules lie")
    arguments = parser.parse_args()
    root, out = arguments.root.resolve(), arguments.out.resolve()
    try:
        if arguments.image == "hostlib":
            elf = hostlib.build(root, arguments.module or ["hypervisor.main"], out, arguments.sanitize)
        else:
            elf = build_image(root, IMAGES[arguments.image], out, arguments.image, arguments.release, arguments.measure_paths)
    except (Refused, BuildError) as error:
        print(error, file=sys.stderr)
        return 1
    print(elf)
    return 0


if __name__ == "__main__":
    sys.exit(main())
