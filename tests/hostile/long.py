"""Fuzzing that takes minutes: random hypercalls on booted machines and off target, and random code at holes; seeds are printed.

    PYTHONPATH=.:build python -m tests.hostile.long > tests/hostile/long.txt
"""

import re
import sys
import tempfile
import time
from pathlib import Path

from krait import paths
from krait.machine import Machine
from qemu_tests import harness
from qemu_tests.harness import VmTable
from tests import sanitized
from tests.hostile import build
from tests.hostile.off_target import ALL_MODULES, MODULE

GUESTS = 4
CALLS = {"qemu": 250_000, "bochs": 25_000}
"""For each of GUESTS, by emulator."""
INSTRUCTIONS = 100_000
OFF_TARGET = 10_000_000
SECONDS = 900.0


def guest(name: str, kind: str, do: str) -> VmTable:
    """One VM of the hostile kernel."""
    kernel = build.kernels()[0 if kind == "pv" else 1]
    return {"name": name, "kind": kind, "memory": "8MiB", "kernel": str(kernel), "cmdline": f"do={do}"}


def boot(emulator: str) -> None:
    """Boot, wait for the end, print what the guests said; AssertionError when one says that something is wrong."""
    machine = Machine("qemu" if emulator == "qemu" else "bochs")
    vms = [guest(f"calls{seed}", "pv", f"hypercalls count={CALLS[emulator]} seed={seed}") for seed in range(1, GUESTS + 1)]
    vms.append(guest("code", "multiboot", f"strange-code count={INSTRUCTIONS} seed=5"))
    start = time.monotonic()
    console = harness.start(machine, vms, paths.OUT / "test-logs" / "long" / emulator, False, True, None)
    try:
        text = console.wait_end(SECONDS).text
    finally:
        console.close()
    said = re.findall(r"\d+ (?:hypercalls|instructions at holes), seed \d+.*|\d+ done, .*", text)
    assert len([line for line in said if line.rstrip().endswith(", 0 wrong")]) == GUESTS, text
    assert "ledger: ok" in text
    print(f"{emulator}, {machine.vendor}, {time.monotonic() - start:.0f} s:")
    for line in said:
        print(f"  {line.rstrip()}")
    sys.stdout.flush()


def main() -> None:
    """All of it."""
    for emulator in CALLS:
        boot(emulator)
    with tempfile.TemporaryDirectory() as folder:
        print(sanitized.run(MODULE, ALL_MODULES, Path(folder), OFF_TARGET, 1), end="")


if __name__ == "__main__":
    main()
