"""The assembly guests of this folder, built as their users would: an ELF32 file, or a flat one for a header with addresses."""

import subprocess
from pathlib import Path

from krait import paths

HERE = Path(__file__).resolve().parent
OUT = paths.OUT / "multiboot"
BASE = 0x10000


def elf(name: str) -> Path:
    """`NAME.S`, assembled and linked at BASE."""
    return _link(name, OUT / f"{name}.elf", [])


def flat(name: str) -> Path:
    """The same with addresses in its header, as a file that has no format; its bss is beyond the file's end."""
    linked = _link(name, OUT / f"{name}-flat.elf", ["-DADDRESSES"])
    made = linked.with_suffix(".bin")
    subprocess.run(["objcopy", "-O", "binary", str(linked), str(made)], check=True)
    return made


def _link(name: str, made: Path, options: list[str]) -> Path:
    OUT.mkdir(parents=True, exist_ok=True)
    unit = made.with_suffix(".o")
    subprocess.run(["gcc", "-m32", "-c", *options, str(HERE / f"{name}.S"), "-o", str(unit)], check=True)
    subprocess.run(["ld", "-m", "elf_i386", f"-Ttext={BASE:#x}", "-N", "--no-warn-rwx-segments", "--build-id=none", str(unit),
                    "-o", str(made)], check=True)  # fmt: skip
    return made
