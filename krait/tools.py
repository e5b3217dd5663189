"""The programs that Krait starts, and the Debian package that each comes from."""

import shutil
from dataclasses import dataclass

from krait.outcome import ExitCode, KraitError


@dataclass(frozen=True)
class Tool:
    """One program: its name on PATH, its Debian package, and what Krait does with it."""

    name: str
    package: str
    purpose: str
    optional: bool = False

    def path(self) -> str | None:
        """Where it is, or None; the sbin folders count even when PATH leaves them out."""
        return shutil.which(self.name) or shutil.which(self.name, path="/usr/sbin:/sbin:/usr/local/sbin")


TOOLS = (
    Tool("gcc", "gcc", "compiles and links the image"),
    Tool("objcopy", "binutils", "reads and edits ELF files"),
    Tool("addr2line", "binutils", "names places in the image"),
    Tool("qemu-system-x86_64", "qemu-system-x86", "AMD SVM machine"),
    Tool("bochs", "bochs", "VT-x machine"),
    Tool("grub-mkrescue", "grub-common", "makes the ISO that Bochs boots"),
    Tool("xorriso", "xorriso", "writes the ISO for grub-mkrescue"),
    Tool("mformat", "mtools", "needed by grub-mkrescue"),
    Tool("apt-get", "apt", "fetches the stock kernel's package"),
    Tool("dpkg-deb", "dpkg", "unpacks the stock kernel"),
    Tool("busybox", "busybox-static", "user space of the Linux guest"),
    Tool("mke2fs", "e2fsprogs", "file systems of guests' disks"),
    Tool("lz4", "lz4", "takes the stock kernel out of its image for PVH entry"),
    Tool("zstd", "zstd", "the same of kernels compressed by it", optional=True),
    Tool("stress-ng", "stress-ng", "loads a Linux guest in a test", optional=True),
    Tool("clang", "clang", "sanitizers of the host library"),
    Tool("gdb", "gdb", "krait run --gdb", optional=True),
)

BY_NAME = {tool.name: tool for tool in TOOLS}


def require(name: str) -> str:
    """The path of a program of `TOOLS`; KraitError MISSING, with the command that mends it, when it is not there."""
    tool = BY_NAME[name]
    path = tool.path()
    if path is None:
        raise KraitError(
            f"{name} is missing ({tool.purpose}); mend it with: {install_command(tool.package)}", ExitCode.MISSING
        )
    return path


def install_command(package: str) -> str:
    """The command line that installs one Debian package."""
    return f"sudo apt-get install -y {package}"
