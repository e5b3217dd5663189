"""Runs Cython, gcc and the linker over generated files, each only when what it reads has changed."""
from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

import cython_backend
from compiler import Unit
from emit_c import header_name

BUILD = Path(__file__).resolve().parent
STORED = 2000
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-but-set-variable", "-Wno-unused-variable",
            "-Wno-unused-label", "-Wno-type-limits", "-Wno-builtin-declaration-mismatch",
            *(f"-Werror={name}" for name in ("sign-compare", "shift-count-overflow", "overflow", "maybe-uninitialized",
                                             "uninitialized", "implicit-function-declaration", "int-conversion",
                                             "incompatible-pointer-types", "array-bounds", "return-type"))]
# -fno-peephole2: gcc 12.2 rewrites "load, copy, and, cmov" so that it tests a register the load has overwritten (seen in
# nested_walk.leaf, at plain -O2 too). Leaving out if-conversion hides only some of it.
# -fno-ipa-reference, -fno-ipa-modref: both take a call for harmless to the variables that its code does not name, even if it
# waits for another CPU or lets interrupts in (seen in smp.py: a variable that a wait waits for, kept in a register across it).
METAL = ["-std=gnu11", "-O2", "-g", "-gdwarf-4", "-ffreestanding", "-mgeneral-regs-only", "-mno-red-zone", "-fno-pic", "-fno-pie",
         "-fno-stack-protector", "-mpreferred-stack-boundary=3", "-malign-data=abi", "-falign-functions=1", "-falign-jumps=1", "-falign-loops=1", "-falign-labels=1", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-ffunction-sections",
         "-fdata-sections", "-fno-omit-frame-pointer", "-fno-strict-aliasing", "-fwrapv", "-fno-delete-null-pointer-checks",
         "-fno-crossjumping", "-fno-tree-tail-merge", "-fno-peephole2", "-fno-ipa-reference", "-fno-ipa-modref", "-ftrivial-auto-var-init=zero",
         "-Ulinux", "-Uunix", "-minline-all-stringops",  # gcc writes copies and fills itself: there is no library
         "-mmemcpy-strategy=rep_8byte:-1:noalign", "-mmemset-strategy=rep_8byte:-1:noalign",
         "-fsanitize=bounds-strict,integer-divide-by-zero", "-fsanitize-undefined-trap-on-error"]

# Modules of the hypervisor that run between a VM exit and the next entry as a matter of course: for speed. The others are
# built for size: loaders, drivers' starts, the operator's commands and dumps are most of the image and run rarely.
HOT = ("hypervisor/run_loop", "hypervisor/exits", "hypervisor/lock", "hypervisor/inject", "hypervisor/event_delivery", "hypervisor/clock",
       "hypervisor/arch_x86/backend", *(f"hypervisor/arch_x86/{vendor}/{part}" for vendor in ("svm", "vtx")
                                        for part in ("vcpu", "decode", "inject", "exit_table", "current")),
       *(f"hypervisor/handlers/{cause}" for cause in ("cpuid", "hypercall", "io", "interrupt", "outcome", "nested_fault", "rdmsr", "wrmsr")),
       "hypervisor/hypercalls/", "hypervisor/mmio_known", "hypervisor/mmio_devices", "hypervisor/devices/lapic", "hypervisor/apic_bus",
       "hypervisor/memory/frames", "hypervisor/sched/virtual_time", "hypervisor/sched/fair_tree", "guest_pv_drivers/")


class BuildError(Exception):
    """A tool failed; the text is what it said."""


class Stage:
    """Prints on stderr how long a stage of the build took."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Stage:
        self.start = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        print(f"{self.name:<34}{time.monotonic() - self.start:7.2f} s", file=sys.stderr)


def run(command: list[str], cwd: Path | None = None) -> str:
    """Run a tool; BuildError with its messages if it fails, messages on stderr otherwise."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[:1])} failed:\n{done.stderr or done.stdout}")
    if done.stderr:
        print(done.stderr, end="", file=sys.stderr)
    return done.stdout


def write(path: Path, text: str) -> None:
    """Write a file if its text differs."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class Cache:
    """What every output was made of: an output is current while the digest of its inputs stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def stale(self, output: Path, *inputs: str) -> bool:
        """Whether the output is missing or its inputs changed; notes the new inputs with `made`."""
        return not output.exists() or self.known.get(str(output)) != digest(*inputs)

    def made(self, output: Path, *inputs: str) -> None:
        """Note that the output was made of the inputs."""
        self.known[str(output)] = digest(*inputs)
        self.path.write_text(json.dumps(self.known))


def digest(*parts: str) -> str:
    """One digest over texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _start_worker(directory: str) -> None:
    os.chdir(directory)
    cython_backend.install()


def _translate(job: tuple[str, str, str]) -> str:
    source, target, name = job
    fresh = Path(target).with_suffix(f".{os.getpid()}.new")
    try:
        cython_backend.translate(Path(source), fresh, name)
    except cython_backend.BackendError as error:
        return str(error)
    fresh.replace(target)
    return ""


class Toolchain:
    """Builds objects below one output directory."""

    def __init__(self, root: Path, directory: Path) -> None:
        self.root, self.directory = root, directory
        directory.mkdir(parents=True, exist_ok=True)
        self.cache = Cache(directory / "cache.json")
        self.back_end = (BUILD / "cython_backend.py").read_text() + version("cython")
        self.store = root / ".cache" / "cython"  # C by what it was made of, for every image and every output directory

    def translate(self, units: list[Unit]) -> list[Path]:
        """Write the generated files and let Cython translate the modules it has not seen yet; the C files."""
        jobs, sources, translated = [], [], []
        for unit in units:
            stem = self.directory.joinpath(*unit.module.name.split("."))
            write(self.directory / header_name(unit.module), unit.header)
            if unit.source:
                for part in list(stem.relative_to(self.directory).parents)[:-1]:
                    write(self.directory / part / "__init__.pxd", "")
                write(stem.with_suffix(".py"), unit.source)
                write(stem.with_suffix(".pxd"), unit.declarations)
                made = self.store / f"{digest(unit.module.name, unit.source, unit.declarations, self.back_end)}.c"
                translated.append((stem.with_suffix(".c"), made, unit.tail))
                if not made.exists():
                    jobs.append((str(stem.with_suffix(".py").relative_to(self.directory)), str(made), unit.module.name))
            elif unit.tail:
                write(stem.with_suffix(".c"), f'#include "{header_name(unit.module)}"\n{unit.tail}')
            if unit.source or unit.tail:
                sources.append(stem.with_suffix(".c"))
        self._translate_all(jobs)
        for path, made, tail in translated:
            write(path, f"{made.read_text()}\n{tail}" if tail else made.read_text())
        return sources

    def _translate_all(self, jobs: list[tuple[str, str, str]]) -> None:
        if not jobs:
            return
        self.store.mkdir(parents=True, exist_ok=True)
        for old in sorted(self.store.glob("*.c"), key=lambda path: path.stat().st_mtime, reverse=True)[STORED:]:
            old.unlink(missing_ok=True)
        workers = min(len(jobs), os.cpu_count() or 1)
        with multiprocessing.get_context("fork").Pool(workers, _start_worker, (str(self.directory),)) as pool:
            said = [text for text in pool.imap_unordered(_translate, jobs) if text]
        if said:
            raise BuildError("\n".join(said))

    def objects(self, sources: list[Path], compiler: str, flags: list[str], suffix: str = ".o", optimize_cold: bool = False) -> list[Path]:
        """Compile C and assembly; objects lie beside the generated C."""
        flags = [*flags, f"-I{self.directory}", f"-I{self.root}", f"-I{BUILD}", f"-ffile-prefix-map={self.directory}={self.root}"]
        jobs = []
        for source in sources:
            place = source if source.is_relative_to(self.directory) else self.directory / source.relative_to(self.root)
            target = place.with_name(place.name + suffix)
            target.parent.mkdir(parents=True, exist_ok=True)
            cold = optimize_cold and not place.relative_to(self.directory).as_posix().startswith(HOT)
            jobs.append((source, target, [compiler, "-c", *flags, *(["-Oz"] if cold else []), str(source), "-o", str(target)]))
        texts: dict[Path, str] = {}
        stale = [(target, command, inputs) for source, target, command in jobs
                 if self.cache.stale(target, *(inputs := (self._closure(source, texts), " ".join(command))))]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job: run(job[1], self.directory), stale))
        for target, _, inputs in stale:
            self.cache.made(target, *inputs)
        return [target for _, target, _ in jobs]

    def _closure(self, path: Path, texts: dict[Path, str]) -> str:
        """The texts of a file and of all it includes, as one digest."""
        parts: list[str] = []
        seen: set[Path] = set()
        todo = [path]
        while todo:
            current = todo.pop()
            if current in seen:
                continue
            seen.add(current)
            if current not in texts:
                texts[current] = current.read_text()
            parts.append(texts[current])
            for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', texts[current], re.M):
                todo += [found for base in (current.parent, self.directory, self.root, BUILD) if (found := base / name).exists()][:1]
        return digest(*parts)
