"""`krait run --gdb`: gdb stops the hypervisor at a line of its Python source."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from krait import paths
from krait.machine import Machine

SOURCE = "hypervisor/main.py"
SECONDS = 120


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_gdb_stops_at_a_line_of_python(machine: Machine) -> None:
    """The command that is printed works; break-point, back-trace and listing speak of main.py."""
    if shutil.which("gdb") is None:
        pytest.skip("gdb is missing; mend it with: scripts/setup")
    lines = (paths.ROOT / SOURCE).read_text().splitlines()
    number = next(index for index, line in enumerate(lines, start=1) if "tsc.measure()" in line)
    with subprocess.Popen([sys.executable, "-m", "krait", "run", "--gdb"], cwd=paths.ROOT, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:  # fmt: skip
        try:
            assert run.stderr is not None
            command = shlex.split(run.stderr.readline().partition("another terminal: ")[2])
            assert command[0] == "gdb"
            for order in (f"hbreak {SOURCE}:{number}", "continue", "backtrace", "kill"):
                command += ["-ex", order]
            told = subprocess.run([*command, "-q", "-batch"], cwd=paths.ROOT, stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, timeout=SECONDS)  # fmt: skip
        finally:
            run.terminate()
    stopped = re.search(rf"^Breakpoint 1, .* at {SOURCE}:(\d+)\n(\d+)\t(.*)$", told.stdout, re.MULTILINE)
    assert stopped is not None, told
    place = int(stopped[1])
    assert number <= place <= number + 3, "the optimizer may move it to the next statement"
    assert (stopped[2], stopped[3]) == (stopped[1], lines[place - 1])
    assert re.search(rf"^#0 .* at {SOURCE}:{place}\n#1 .*long_mode", told.stdout, re.MULTILINE | re.DOTALL)
