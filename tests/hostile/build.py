"""Builds the hostile guest: an ELF64 file to be a PV kernel, and the same as ELF32 with the other entry to be a Multiboot kernel."""

import subprocess
import sys
from functools import cache
from pathlib import Path

from krait import paths

OUT = paths.OUT / "hostile"


@cache
def kernels() -> tuple[Path, Path]:
    """Build what changed; the PV kernel and the Multiboot kernel."""
    if str(paths.ROOT / "build") not in sys.path:
        sys.path.insert(0, str(paths.ROOT / "build"))
    import make_image

    image = make_image.Image("tests.hostile.main", "tests/hostile", "guest.ld", "hostile.elf", {"": 0x4000})
    with paths.lock("build"):
        elf = make_image.build_image(paths.ROOT, image, OUT, "image", release=True)
        symbols = subprocess.run(["nm", str(elf)], capture_output=True, text=True, check=True).stdout
        entry = next(line.split()[0] for line in symbols.splitlines() if line.endswith(" multiboot_start"))
        small = elf.with_name("hostile32.elf")
        subprocess.run(["objcopy", "-O", "elf32-i386", f"--set-start=0x{entry}", str(elf), str(small)], check=True)
    return elf, small


if __name__ == "__main__":
    print(*kernels())
