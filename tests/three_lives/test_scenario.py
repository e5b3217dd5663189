"""One scenario, three lives: interpreted, as a host library, on the bare machine."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hostlib
import make_image
from host_library import HostLibrary
from tests.three_lives.builds import MODULES, ROOT
from tests.three_lives.sample import scenario

SEED = 2026


@pytest.fixture(scope="module")
def interpreted() -> str:
    """What the scenario answers under CPython."""
    digest = scenario.run(SEED)
    log = scenario.log
    return f"digest {digest:016x} picks {log.picks} lost {log.lost} used {log.used}"


def test_host_library(library: HostLibrary, interpreted: str) -> None:
    digest = library.function("tests.three_lives.sample.scenario.run")(SEED)
    log = library.storage("tests.three_lives.sample.scenario.log", library.struct("tests.three_lives.sample.scenario.Log"))
    assert f"digest {digest:016x} picks {log.picks} lost {log.lost} used {log.used}" == interpreted


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is missing")
def test_bare_machine(tmp_path: Path, interpreted: str) -> None:
    image = make_image.Image("tests.three_lives.metal.main", "tests/three_lives/metal", "hypervisor.ld", "three_lives.elf", {"": 16384})
    elf = make_image.build_image(ROOT, image, tmp_path, "three_lives", release=True)
    said = subprocess.run(["qemu-system-x86_64", "-m", "64", "-display", "none", "-no-reboot", "-debugcon", "stdio", "-serial", "null",
                           "-monitor", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", str(elf)],
                          capture_output=True, text=True, timeout=60)
    assert interpreted in said.stdout


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is missing")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """The comparison again, on a library built with address, undefined, overflow and conversion sanitizers."""
    hostlib.build(ROOT, MODULES, tmp_path, sanitize=True)
    done = run_sanitized(tmp_path, ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly",
                                    "tests/three_lives/test_interpreted_and_compiled.py", "tests/three_lives/test_devices.py"])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is missing")
@pytest.mark.parametrize(("call", "message"), [
    ("('faults.lower', 0, 1)", "unsigned integer overflow"), ("('faults.narrow', 300)", "implicit conversion"),
    ("('faults.pick', 9)", "out of bounds"), ("('faults.must_be_even', 3)", ": trap"),
    ("('faults.refer', 4)", ": trap"), ("('faults.row', 2)", ": trap")])
def test_sanitizers_name_the_python_line(tmp_path_factory: pytest.TempPathFactory, call: str, message: str) -> None:
    out = tmp_path_factory.getbasetemp() / "faults"
    hostlib.build(ROOT, ["tests.three_lives.sample.faults"], out, sanitize=True)
    program = ("import pathlib, sys; sys.path.insert(0, 'build'); from host_library import HostLibrary\n"
               f"name, *values = {call}\n"
               f"HostLibrary(pathlib.Path({str(out)!r})).function('tests.three_lives.sample.' + name)(*values)")
    done = run_sanitized(out, ["-c", program])
    assert done.returncode != 0
    assert message in done.stderr and "tests/three_lives/sample/faults.py:" in done.stderr


def run_sanitized(library: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run Python with the sanitizers' runtime loaded first."""
    runtime = subprocess.run(["clang", "-print-file-name=libclang_rt.asan-x86_64.so"], capture_output=True, text=True, check=True)
    environment = {**os.environ, "KRAIT_HOST_LIBRARY": str(library), "LD_PRELOAD": runtime.stdout.strip(),
                   "PYTHONMALLOC": "malloc", "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=0"}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
