"""The doctor: what it finds missing it says, with the command that mends it, and setup installs it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from krait import doctor, paths, tools
from krait.cli import app
from krait.outcome import ExitCode


def packages() -> set[str]:
    """What scripts/setup installs."""
    lines = (paths.ROOT / "scripts" / "debian-packages").read_text().splitlines()
    return {line.split("#")[0].strip() for line in lines} - {""}


def test_setup_installs_all_that_the_doctor_asks_for() -> None:
    asked = {tool.package for tool in tools.TOOLS} | {package for _, package, _ in doctor.FILES}
    assert asked - packages() <= {"apt"}


def test_a_missing_tool_is_reported_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = tools.Tool("no-such-program", "some-package", "does something")
    optional = tools.Tool("no-such-luxury", "other-package", "is nice", optional=True)
    monkeypatch.setattr(tools, "TOOLS", (missing, optional))
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings["no-such-program"].state == "MISSING"
    assert findings["no-such-program"].mend == "sudo apt-get install -y some-package"
    assert findings["no-such-luxury"].state == "optional"
    assert not doctor.healthy(list(findings.values()))

    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == ExitCode.MISSING
    assert {"name": "no-such-program", "state": "MISSING", "detail": "does something",
            "mend": "sudo apt-get install -y some-package"} in json.loads(done.stdout)  # fmt: skip
    shown = CliRunner().invoke(app, ["doctor"])
    assert "MISSING" in shown.stdout and "sudo apt-get install -y some-package" in shown.stdout


def test_only_what_is_needed_makes_it_ill() -> None:
    fine, luxury = doctor.Finding("a", "ok", ""), doctor.Finding("b", "optional", "")
    assert doctor.healthy([fine, luxury])
    assert not doctor.healthy([fine, doctor.Finding("c", "MISSING", "")])
