"""Building what is booted: the hypervisor's image, the PV guest kernel, and bundles of guests."""

import functools
import subprocess
import sys
from pathlib import Path

from krait import bundle, linux_image, paths, progress, vmlinux
from krait.bundle import GuestFiles
from krait.config import Settings, VmSettings
from krait.config_reader import ConfigError
from krait.outcome import ExitCode, KraitError

MAKE_IMAGE = paths.ROOT / "build" / "make_image.py"
HYPERVISOR_ELF = "krait.elf"
PV_GUEST_ELF = "pv_guest.elf"


def hypervisor(release: bool) -> Path:
    """Build the hypervisor (only what changed) and return its ELF file."""
    return _make("hypervisor", release) / HYPERVISOR_ELF


def measured_hypervisor() -> Path:
    """Build the release image that counts the length of its paths, and return its ELF file."""
    return _make("hypervisor", True, True) / HYPERVISOR_ELF


def pv_guest(release: bool) -> Path:
    """Build the PV guest kernel (only what changed) and return its ELF file."""
    return _make("guest", release) / PV_GUEST_ELF


@functools.cache
def _make(target: str, release: bool, measure_paths: bool = False) -> Path:
    """Build at most once a process, however many machines it boots; returns the output folder."""
    out = paths.OUT / "paths" if measure_paths else paths.image_dir(release)
    command = [sys.executable, str(MAKE_IMAGE), target, "--out", str(out)]
    if release:
        command.append("--release")
    if measure_paths:
        command.append("--measure-paths")
    with paths.lock("build"), progress.stage(f"{target} ({out.name})"):
        done = subprocess.run(command, cwd=paths.ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)  # fmt: skip
    if done.returncode != 0:
        raise KraitError(f"building the {target} failed:\n{done.stdout.strip()}", ExitCode.BUILD)
    for line in done.stdout.splitlines():
        if line.startswith("  stack "):  # worst case of each entry point
            progress.note(line)
    return out


def guests(settings: Settings, release: bool) -> dict[str, GuestFiles]:
    """The files each VM boots, by VM name: Krait's own kernels where the configuration names none."""
    needed = {vm.kind for vm in settings.vms if vm.kernel is None}
    own_pv = pv_guest(release) if "pv" in needed else None
    own_linux = linux_image.kernel() if "linux" in needed else None
    initrds = {disks: linux_image.initramfs(disks) for disks in {bool(vm.disks) for vm in settings.vms if vm.kind == "linux"}}
    files: dict[str, GuestFiles] = {}
    for vm in settings.vms:
        kernel = vm.kernel or (own_pv if vm.kind == "pv" else own_linux if vm.kind == "linux" else None)
        assert kernel is not None
        if vm.boot == "pvh":
            kernel = vmlinux.extracted(kernel)
        files[vm.name] = GuestFiles(kernel, (vm.initrd or initrds[bool(vm.disks)]) if vm.kind == "linux" else None)
    problems = [problem for vm in settings.vms if (problem := _too_small(vm, files[vm.name]))]
    if problems:
        raise ConfigError(problems)
    return files


def _too_small(vm: VmSettings, files: GuestFiles) -> str:
    """What is wrong with a Linux guest's memory, or an empty text."""
    if files.initrd is None:
        return ""
    needed = linux_image.memory_needed(files.kernel.read_bytes(), files.initrd.stat().st_size)
    if vm.memory >= needed:
        return ""
    return f"{vm.memory_line}: '{vm.name}' has {vm.memory >> 20}MiB; its kernel and file system need {-(-needed >> 20)}MiB to be loaded"


def write_bundle(settings: Settings, path: Path, release: bool, end_auto: bool, attach: bool = False) -> Path:
    """Write the bundle of `settings` to `path`, building the guests it needs."""
    return paths.write_whole(path, bundle.encode(settings, guests(settings, release), end_auto, attach))
