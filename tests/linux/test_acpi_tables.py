"""The DSDT in acpi_tables.py is what Intel's compiler makes of dsdt.asl."""
import shutil
import subprocess
from pathlib import Path

import pytest

from hypervisor.loaders import acpi_tables

ASL = Path(acpi_tables.__file__).with_name("dsdt.asl")
HEADER_BYTES = 36


@pytest.mark.skipif(shutil.which("iasl") is None, reason="acpica-tools is missing; scripts/setup installs it")
def test_the_dsdt_is_its_source_compiled(tmp_path: Path) -> None:
    done = subprocess.run(["iasl", "-we", "-p", str(tmp_path / "dsdt"), str(ASL)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "dsdt.aml").read_bytes()[HEADER_BYTES:] == bytes(acpi_tables.DSDT_AML)
