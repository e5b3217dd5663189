"""The stock Linux guest: Debian's cloud kernel as its package ships it, and a busybox file system around our /init.

The package is downloaded and unpacked, never installed, and kept in `.cache/`.
"""

import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from krait import newc, paths, progress, tools, vmlinux
from krait.outcome import ExitCode, KraitError

META_PACKAGE = "linux-image-cloud-amd64"
GENERAL_META_PACKAGE = "linux-image-amd64"
KERNEL_PACKAGE = re.compile(r"linux-image-\d\S*-amd64(?!-unsigned|-dbg)\b")
KERNEL_CACHE = paths.CACHE / "linux"
GENERAL_CACHE = paths.CACHE / "linux-general"
INITRAMFS = paths.OUT / "guest" / "initramfs.cpio"
DISK_INITRAMFS = paths.OUT / "guest" / "initramfs-disk.cpio"
BOOT_ROOT = Path(__file__).resolve().parent / "guest_boot_root.sh"
DISK_CHECK = Path(__file__).resolve().parent / "guest_disk_check.sh"
MAKE_FILE_SYSTEM = "mke2fs"
INIT = Path(__file__).resolve().parent / "guest_init.sh"
INITTAB = Path(__file__).resolve().parent / "guest_inittab"
DIRECTORIES = ("bin", "dev", "etc", "lib", "lib/modules", "proc", "sys", "tmp")
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk", "virtio-rng", "virtio_console")
"""Drivers of Krait's devices that Debian's cloud kernel has as modules, in the order in which they are loaded."""
CONSOLE_DEVICE = (5, 1)


def cached_kernel() -> Path | None:
    """The kernel that was unpacked earlier: the newest when there are several."""
    found = sorted(KERNEL_CACHE.glob("vmlinuz-*"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def kernel() -> Path:
    """The path of a vmlinuz; downloads Debian's package the first time."""
    with paths.lock("linux-kernel"):
        found = cached_kernel()
        if found is not None and all((modules_of(found) / f"{name}.ko").is_file() for name in MODULES):
            return found
        with progress.stage("Linux kernel of Debian (downloaded once)"):
            return _fetch_kernel()


def general_kernel() -> Path:
    """Debian's kernel for all machines, which a test boots; it is larger and packed by XZ. Downloaded the first time."""
    with paths.lock("linux-kernel"):
        found = sorted(GENERAL_CACHE.glob("vmlinuz-*"))
        if found:
            return found[-1]
        GENERAL_CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=GENERAL_CACHE) as name:
            image = _unpacked_image(_kernel_package(GENERAL_META_PACKAGE), Path(name))
            return image.rename(GENERAL_CACHE / image.name)


def _unpacked_image(package: str, folder: Path) -> Path:
    """Download a kernel's package and unpack it below `folder`/tree; the kernel in there."""
    apt_get, dpkg_deb = tools.require("apt-get"), tools.require("dpkg-deb")
    _run([apt_get, "download", package], folder)
    _run([dpkg_deb, "--extract", str(next(folder.glob("*.deb"))), "tree"], folder)
    return next((folder / "tree" / "boot").glob("vmlinuz-*"))


def _fetch_kernel() -> Path:
    KERNEL_CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KERNEL_CACHE) as name:
        folder = Path(name)
        image = _unpacked_image(_kernel_package(META_PACKAGE), folder)
        modules = folder / "modules"
        modules.mkdir()
        for name in MODULES:
            next((folder / "tree" / "lib").rglob(f"{name}.ko")).rename(modules / f"{name}.ko")
        found = KERNEL_CACHE / image.name
        if modules_of(found).is_dir():
            shutil.rmtree(modules_of(found))
        modules.rename(modules_of(found))
        return image.rename(found)


def modules_of(kernel: Path) -> Path:
    """The folder of a kernel's drivers, beside it."""
    return kernel.with_name(kernel.name.replace("vmlinuz-", "modules-", 1))


def _kernel_package(meta_package: str) -> str:
    """The package that a meta-package depends on: its name carries the kernel's version."""
    depends = _run(["apt-cache", "depends", meta_package], Path.cwd())
    found = KERNEL_PACKAGE.search(depends)
    if found is None:
        raise KraitError(
            f"apt knows no {meta_package} (Ubuntu has none). Run apt-get update as root, or put a kernel with virtio and "
            f"a 16550 console at {paths.shown(KERNEL_CACHE)}/vmlinuz-VERSION, its modules ({', '.join(MODULES)}) at modules-VERSION/",
            ExitCode.MISSING,
        )
    return found[0]


def _run(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise KraitError(f"{command[0]} is missing", ExitCode.MISSING) from error
    if done.returncode != 0:
        raise KraitError(f"{' '.join(command)} failed:\n{done.stderr.strip()}", ExitCode.MISSING)
    return done.stdout


def memory_needed(kernel_image: bytes, initrd_bytes: int) -> int:
    """Bytes of memory below which the kernel cannot be loaded; 0 when the file is no kernel (the hypervisor says so).

    Linux, Documentation/arch/x86/boot.rst (6.1): HdrS at 0x202, pref_address at 0x258, init_size at 0x260; the initial
    file system lies above the kernel.
    """
    if kernel_image.startswith(vmlinux.ELF):
        return vmlinux.memory_needed(kernel_image) + initrd_bytes
    if kernel_image[0x202:0x206] != b"HdrS":
        return 0
    pref_address, init_size = struct.unpack_from("<QI", kernel_image, 0x258)
    return int(pref_address) + int(init_size) + initrd_bytes


def initramfs(disk_tools: bool = False) -> Path:
    """Write the initial file system (deterministic: the same bytes from the same busybox) and return its path.

    `disk_tools`: for guests with disks, with Debian's mke2fs and the libraries that it needs, and disk-check.
    """
    found = members() + (_disk_tools() if disk_tools else [])
    return paths.write_whole(DISK_INITRAMFS if disk_tools else INITRAMFS, newc.write(found))


def members() -> list[newc.Member]:
    """What each initial file system of ours holds."""
    busybox = Path(tools.require("busybox")).resolve()
    directory, program = newc.S_IFDIR | 0o755, newc.S_IFREG | 0o755
    found = [newc.Member(name, mode=directory) for name in DIRECTORIES]
    found += [
        newc.Member("dev/console", mode=newc.S_IFCHR | 0o600, device=CONSOLE_DEVICE),
        newc.Member("bin/busybox", busybox.read_bytes(), program),
        newc.Member("bin/sh", b"busybox", newc.S_IFLNK | 0o777),
        newc.Member("init", b"bin/busybox", newc.S_IFLNK | 0o777),
        newc.Member("etc/inittab", INITTAB.read_bytes()),
        newc.Member("etc/start", INIT.read_bytes(), program),
    ]
    return found + module_members()


def module_members() -> list[newc.Member]:
    """The kernel's drivers of our devices as /lib/modules/NUMBER-NAME.ko, in loading order; a kernel of one's own may have them built in."""
    names = [f"{number}-{name}" for number, name in enumerate(MODULES)]
    files = [modules_of(kernel()) / f"{name}.ko" for name in MODULES]
    return [newc.Member(f"lib/modules/{name}.ko", file.read_bytes(), newc.S_IFREG | 0o644)
            for name, file in zip(names, files) if file.is_file()]  # fmt: skip


def _disk_tools() -> list[newc.Member]:
    """mke2fs as the package e2fsprogs has it, disk-check and boot-root."""
    scripts = [newc.Member(name, path.read_bytes(), newc.S_IFREG | 0o755) for name, path in (("bin/disk-check", DISK_CHECK), ("bin/boot-root", BOOT_ROOT))]
    return [*program_members(MAKE_FILE_SYSTEM, "sbin/mke2fs"), *scripts]


def program_members(name: str, target: str) -> list[newc.Member]:
    """A program of `tools` as its package has it, at `target`, and its libraries at the paths where it looks for them."""
    program = Path(tools.require(name))
    libraries = sorted(set(re.findall(r"/\S+\.so\S*", _run(["ldd", str(program)], Path.cwd()))))
    parents = {str(folder) for file in [f"/{target}", *libraries] for folder in Path(file).parents}
    folders = sorted(parents - {"/", *(f"/{folder}" for folder in DIRECTORIES)})
    found = [newc.Member(folder.lstrip("/"), mode=newc.S_IFDIR | 0o755) for folder in folders]
    found += [newc.Member(file.lstrip("/"), Path(file).resolve().read_bytes(), newc.S_IFREG | 0o755) for file in libraries]
    return [*found, newc.Member(target, program.resolve().read_bytes(), newc.S_IFREG | 0o755)]


def root_disk(path: Path, mebibytes: int) -> Path:
    """Make `path` an image of a disk with our root file system, ext4, to boot from (guest_boot_root.sh)."""
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        tree = Path(name)
        for folder in (*DIRECTORIES, "sbin"):
            (tree / folder).mkdir(exist_ok=True)
        shutil.copy(Path(tools.require("busybox")).resolve(), tree / "bin" / "busybox")
        (tree / "bin" / "sh").symlink_to("busybox")
        (tree / "sbin" / "init").symlink_to("/bin/busybox")
        shutil.copy(INITTAB, tree / "etc" / "inittab")
        (tree / "etc" / "start").write_bytes(INIT.read_bytes())
        (tree / "etc" / "start").chmod(0o755)
        path.unlink(missing_ok=True)
        _run([tools.require(MAKE_FILE_SYSTEM), "-q", "-t", "ext4", "-d", str(tree), str(path), f"{mebibytes}M"], path.parent)
    return path
