"""The documents speak of what is there: files, links, and options of the command."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from krait import paths
from krait.cli import app

DOCUMENTS = [paths.ROOT / "README.md", *sorted((paths.ROOT / "docs").glob("*.md"))]
FOLDERS = "hypervisor|guest_pv_drivers|build|krait|tests|qemu_tests|docs|scripts"
NAMED = re.compile(rf"`((?:{FOLDERS})/[\w./-]*)`")
LINK = re.compile(r"\]\((?!https?:|#)([\w./-]+\.\w+)\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    text = document.read_text()
    missing = [name for name in NAMED.findall(text) if not (paths.ROOT / name).exists()]
    missing += [name for name in LINK.findall(text) if not (document.parent / name).exists()]
    assert not missing


def test_options_that_are_named_exist() -> None:
    """Every `--option` of docs/running.md is one of krait's (or pytest's, which it does not speak of)."""
    named = set(re.findall(r"--[a-z][a-z-]+", (paths.ROOT / "docs" / "running.md").read_text()))
    known = " ".join(
        CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
        for command in ("doctor", "build", "run", "list", "top", "attach", "bench")
    )
    assert not {option for option in named if option not in known}
