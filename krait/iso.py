"""The bootable ISO: GRUB (BIOS), the hypervisor by Multiboot 2, and the bundle as its one module."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from krait import tools
from krait.machine import Media
from krait.outcome import ExitCode, KraitError

GRUB_MODULES = "/usr/lib/grub/i386-pc"
GRUB_CONFIG = """\
set timeout=0
multiboot2 /boot/krait.elf
module2 /boot/bundle.cpio
boot
"""


def make_iso(media: Media, iso: Path) -> Path:
    """Write `iso` from the kernel and the bundle of `media`, and return it."""
    grub = tools.require("grub-mkrescue")
    tools.require("xorriso")
    tools.require("mformat")
    if not Path(GRUB_MODULES).is_dir():
        raise KraitError(
            f"GRUB's BIOS modules are missing; mend it with: {tools.install_command('grub-pc-bin')}", ExitCode.MISSING
        )
    with tempfile.TemporaryDirectory(prefix=".iso-", dir=iso.parent) as name:
        tree, made = Path(name) / "tree", Path(name) / "krait.iso"
        boot = tree / "boot"
        (boot / "grub").mkdir(parents=True)
        (boot / "grub" / "grub.cfg").write_text(GRUB_CONFIG)
        _strip(tools.require("objcopy"), media.kernel, boot / "krait.elf")
        shutil.copyfile(media.bundle, boot / "bundle.cpio")
        command = [grub, "-o", str(made), "-d", GRUB_MODULES, "--install-modules=multiboot2 normal iso9660 biosdisk"]
        command += ["--fonts=", "--locales=", "--themes=", str(tree)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise KraitError(f"grub-mkrescue failed:\n{done.stderr.strip()}", ExitCode.BUILD)
        return made.rename(iso)


def _strip(objcopy: str, image: Path, stripped: Path) -> None:
    """Leave out what GRUB would load for nobody: it reads all sections, and slowly."""
    done = subprocess.run([objcopy, "--strip-all", str(image), str(stripped)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise KraitError(f"objcopy failed:\n{done.stderr.strip()}", ExitCode.BUILD)
