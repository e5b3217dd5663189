"""Power cuts: QEMU is killed at a random moment while a Linux guest writes and syncs; what it was told is durable must be there.

`python -m qemu_tests.power_cuts 50` does that fifty times and prints a line for each; `make long` keeps what it printed.
"""

import random
import re
import sys
import time
from pathlib import Path

from krait import paths
from krait.machine import Machine
from qemu_tests import harness
from qemu_tests.test_linux import expect_user_space, linux, run

SLOTS = 64
BLOCK = 4096
WRITER = (f"i=0; while true; do i=$((i+1)); printf %08d $i | dd of=/dev/vda bs={BLOCK} seek=$((i%{SLOTS})) conv=fsync 2>/dev/null "
          "&& echo synced $i; done")  # fmt: skip
"""Number i goes to slot i modulo SLOTS; dd has called fsync before the number is said to be synced."""


def cut(folder: Path, bus: str, seed: int) -> tuple[int, int]:
    """One boot and its end: how many writes were promised, and how many slots were looked at. AssertionError if one is lost."""
    draw = random.Random(seed)
    vm = {**linux(run(*WRITER.split())), "disk": [{"disk": "real"}]}
    console = harness.start(Machine("qemu"), [vm], folder, True, False, None, [{"name": "real", "bus": bus, "size": "1MiB"}])
    try:
        expect_user_space(console)
        console.expect_line("tux", f"synced {draw.randint(1, 80)}\\s", 120)
        time.sleep(draw.random() / 20)
    finally:
        console.emulator.child.process.kill()
        console.close()
    text = console.text
    promised = max(int(number) for number in re.findall(r"\[tux\] synced (\d+)\r?\n", text))
    data = (folder / "real.img").read_bytes()
    for number in range(max(1, promised - SLOTS + 1), promised + 1):
        found = data[number % SLOTS * BLOCK :][:8]
        later = range(number, promised + SLOTS, SLOTS)  # written again, and perhaps not yet promised
        assert found.isdigit() and int(found) in later, f"seed {seed}: of {promised} promised, number {number} is lost: {found!r}"
    return promised, min(promised, SLOTS)


def main(cuts: int) -> None:
    """Every second cut on NVMe, the others on virtio."""
    for seed in range(cuts):
        bus = ("virtio", "nvme")[seed % 2]
        promised, looked_at = cut(paths.OUT / "power-cuts", bus, seed)
        print(f"cut {seed}: {bus}, {promised} writes promised, the last {looked_at} are there", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
