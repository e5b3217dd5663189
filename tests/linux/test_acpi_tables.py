"""The DSDT in acpi_tables.py is what Intel's compiler makes of dsdt.asl, and it finds nothing wrong with the other tables."""
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hypervisor.loaders import acpi_tables
from hypervisor.status import Status
from tests.linux.stock import Stock

ASL = Path(acpi_tables.__file__).with_name("dsdt.asl")
HEADER_BYTES = 36
PROBLEM = re.compile(r"warning|error|invalid|incorrect|truncated|unknown", re.IGNORECASE)


@pytest.mark.skipif(shutil.which("iasl") is None, reason="acpica-tools is missing; scripts/setup installs it")
def test_the_dsdt_is_its_source_compiled(tmp_path: Path) -> None:
    done = subprocess.run(["iasl", "-we", "-p", str(tmp_path / "dsdt"), str(ASL)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "dsdt.aml").read_bytes()[HEADER_BYTES:] == bytes(acpi_tables.DSDT_AML)


@pytest.mark.skipif(shutil.which("iasl") is None, reason="acpica-tools is missing; scripts/setup installs it")
@pytest.mark.parametrize("vcpus", [1, 64])
def test_all_tables_are_valid(stock: Stock, tmp_path: Path, vcpus: int) -> None:
    """Intel's compiler takes each apart, knows every field, and compiles what it made of it to the same bytes."""
    stock.vm.vcpu_count = vcpus
    assert acpi_tables.write(stock.vm) == Status.OK
    xsdt = stock.number_at(acpi_tables.AREA + 24, 8)
    fadt, *others = (stock.number_at(xsdt + place, 8) for place in range(HEADER_BYTES, stock.number_at(xsdt + 4, 4), 8))
    for place in (xsdt, fadt, *others, stock.number_at(fadt + 140, 8), stock.number_at(fadt + 36, 4)):
        data = stock.bytes_at(place, stock.number_at(place + 4, 4))
        name = data[:4].decode().lower()
        (tmp_path / f"{name}.dat").write_bytes(data)
        apart = iasl(tmp_path, "-d", f"{name}.dat")
        assert not PROBLEM.search(apart), apart
        if name in ("facs", "dsdt"):  # has no checksum; is compiled above
            continue
        said = iasl(tmp_path, "-p", f"{name}-again", f"{name}.dsl")
        assert without_compiler((tmp_path / f"{name}-again.aml").read_bytes()) == without_compiler(data), said


def without_compiler(table: bytes) -> bytes:
    """A table less the name and version of what made it, and the checksum, which the compiler has set to its own."""
    return table[:9] + table[10:28] + table[36:]


def iasl(folder: Path, *arguments: str) -> str:
    """What it says."""
    done = subprocess.run(["iasl", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
