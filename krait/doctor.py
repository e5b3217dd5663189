"""Is everything here that Krait needs? One line each: ok, MISSING or optional, and the command that mends it."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from krait import iso, linux_image, paths, tools

State = Literal["ok", "MISSING", "optional"]


@dataclass(frozen=True)
class Finding:
    """One line of the report. `mend` is a command line, or empty when nothing is wrong or nothing can be done."""

    name: str
    state: State
    detail: str
    mend: str = ""


def examine() -> list[Finding]:
    """Look at everything; takes well under a second and starts no emulator."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (_python, _tools, _files, _kernel, _kvm)
    return [finding for check in checks for finding in check()]


def healthy(findings: list[Finding]) -> bool:
    """Whether nothing that is needed is missing."""
    return all(finding.state != "MISSING" for finding in findings)


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    try:
        cython = metadata.version("cython")
    except metadata.PackageNotFoundError:
        yield Finding("cython", "MISSING", "compiles the typed-Python subset", "scripts/python-env")
    else:
        yield Finding("cython", "ok", f"{cython} on Python {version}")


def _tools() -> Iterator[Finding]:
    for tool in tools.TOOLS:
        path = tool.path()
        if path is not None:
            yield Finding(tool.name, "ok", path)
        else:
            state: State = "optional" if tool.optional else "MISSING"
            yield Finding(tool.name, state, tool.purpose, tools.install_command(tool.package))


FILES = (
    (Path(iso.GRUB_MODULES), "grub-pc-bin", "GRUB's BIOS modules for the ISO"),
    (Path("/usr/share/bochs/BIOS-bochs-latest"), "bochsbios", "BIOS of the VT-x machine"),
    (Path("/usr/share/bochs/VGABIOS-lgpl-latest"), "vgabios", "VGA BIOS of the VT-x machine"),
    (Path("/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so"), "bochs-term", "Bochs without a screen"),
)


def _files() -> Iterator[Finding]:
    for path, package, purpose in FILES:
        if path.exists():
            yield Finding(package, "ok", str(path))
        else:
            yield Finding(package, "MISSING", purpose, tools.install_command(package))


def _kernel() -> Iterator[Finding]:
    found = linux_image.cached_kernel()
    if found is not None:
        yield Finding("Linux guest", "ok", paths.shown(found))
    else:
        yield Finding("Linux guest", "optional", "Debian's kernel is downloaded by the first build", "krait build")


def _kvm() -> Iterator[Finding]:
    reason = nested_kvm_missing()
    if reason is None:
        yield Finding("nested KVM", "ok", "krait run --accel kvm")
    else:
        yield Finding("nested KVM", "optional", f"{reason}; emulation is used")


def nested_kvm_missing() -> str | None:
    """Why guests of KVM cannot virtualize here, or None."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "no access to /dev/kvm" if Path("/dev/kvm").exists() else "no /dev/kvm"
    for module in ("kvm_amd", "kvm_intel"):
        nested = Path(f"/sys/module/{module}/parameters/nested")
        if nested.exists():
            return None if nested.read_text().strip() in ("1", "Y") else f"{module} is loaded with nested=0"
    return "neither kvm_amd nor kvm_intel is loaded"
