#!/usr/bin/env python3
"""Builds an image from modules of the subset: `make_image.py hypervisor|guest|hostlib --out DIR`. Progress is on stderr."""
from __future__ import annotations

import argparse
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


IMAGES = {"hypervisor": Image("hypervisor.main", "hypervisor/arch_x86", "hypervisor.ld", "krait.elf"),
          "guest": Image("guest_pv_drivers.main", "guest_pv_drivers", "guest.ld", "pv_guest.elf")}


def build_image(root: Path, image: Image, out: Path, name: str, release: bool) -> Path:
    """Build one freestanding image; the ELF file's path."""
    tools = Toolchain(root, out / name)
    with Stage("front end"):
        native = Native.find(root, [image.assembly])
        units = compile_program(root, [image.main, *native.called_modules(root / image.main.split(".")[0], root)], {"DEBUG": not release}, native)
    write(tools.directory / "layouts.json", json.dumps(layouts.export([unit.module for unit in units]), indent=1))
    with Stage("cython"):
        sources = tools.translate(units)
    with Stage("gcc"):
        runtime = tools.directory / "runtime.c"
        write(runtime, '#define KRAIT_MEMORY\n#include "prelude.h"\n')
        objects = tools.objects(sources, "gcc", [*METAL, *WARNINGS, "-flto"])
        plain = tools.objects([runtime, *native.assembly], "gcc", METAL)
    with Stage("link"):
        elf = out / image.file
        # One link through gcc's linker plugin: it learns what assembly refers to, so all else is local and inlined freely.
        run(["gcc", *METAL, *WARNINGS, "-flto", "-flto-partition=one", "-nostdlib", "-static", "-Wl,-z,max-page-size=4096",
             "-Wl,-z,noexecstack", "-Wl,--build-id=none", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments",
             f"-Wl,-T,{BUILD / image.script}", *map(str, objects), *map(str, plain), "-o", str(elf)], tools.directory)
        check_symbols(elf)
    return elf


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
    parser.add_argument("--sanitize", action="store_true", help="hostlib: with clang's sanitizers")
    parser.add_argument("--module", action="append", help="hostlib: a module to take in (default: the whole hypervisor)")
    parser.add_argument("--root", type=Path, default=ROOT, help="where the modules lie")
    arguments = parser.parse_args()
    root, out = arguments.root.resolve(), arguments.out.resolve()
    try:
        if arguments.image == "hostlib":
            elf = hostlib.build(root, arguments.module or ["hypervisor.main"], out, arguments.sanitize)
        else:
            elf = build_image(root, IMAGES[arguments.image], out, arguments.image, arguments.release)
    except (Refused, BuildError) as error:
        print(error, file=sys.stderr)
        return 1
    print(elf)
    return 0


if __name__ == "__main__":
    sys.exit(main())
