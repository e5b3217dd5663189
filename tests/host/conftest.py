"""A stand-in for the hypervisor, so that the host side is tested without one."""

import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "fake_hypervisor.S"


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, assembled and linked."""
    folder = tmp_path_factory.mktemp("fake")
    made = folder / "fake.elf"
    subprocess.run(["gcc", "-m32", "-c", str(SOURCE), "-o", str(folder / "fake.o")], check=True)
    link = ["ld", "-m", "elf_i386", "-N", "-Ttext", "0x100000", "--no-warn-rwx-segments", "-e", "start"]
    subprocess.run([*link, "-o", str(made), str(folder / "fake.o")], check=True)
    return made
