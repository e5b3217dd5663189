"""A PV guest offers its disk broken rings, a hundred thousand and more, on a booted machine; another one uses the same host disk meanwhile.

    .venv/bin/python -m qemu_tests.broken_rings 100000 > qemu_tests/broken_rings.txt
"""

import re
import sys
import tempfile
from pathlib import Path

from krait.machine import Machine
from qemu_tests import harness
from qemu_tests.harness import Table, VmTable

SEED = 42
SECONDS = 1500.0


def offer(machine: Machine, count: int, bus: str, folder: Path, release: bool) -> tuple[int, int]:
    """So many rings to a disk of the machine at that bus: how many broke the device, and how many did not. AssertionError when somebody else was hurt, or the disk does not
    work afterwards."""
    memory = "16MiB"
    mallory: VmTable = {"name": "mallory", "kind": "pv", "memory": memory, "workload": "disk-fuzz", "cmdline": f"count={count} seed={SEED}",
                        "disk": [{"disk": "scratch", "size": "4MiB"}]}  # fmt: skip
    ada: VmTable = {"name": "ada", "kind": "pv", "memory": memory, "workload": "disk", "disk": [{"disk": "scratch", "start": "4MiB"}]}
    scratch: Table = {"name": "scratch", "bus": bus, "size": "24MiB"}
    console = harness.start(machine, [mallory, ada], folder, release, True, None, [scratch])
    try:
        text = console.wait_end(SECONDS).text
    finally:
        console.close()
    assert "[ada] disk ok: 5119 blocks are as they were written" in text
    assert text.count("virtio device 1 stands still") == 4, "a line for each of the first four, and no more"
    said = re.search(rf"\[mallory\] fuzz ok: (\d+) of {count} rings broke the device, (\d+) did not", text)
    assert said is not None, text[-2000:]
    return int(said[1]), int(said[2])


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        broken, not_broken = offer(Machine("qemu"), count, "memory", Path(folder), True)
    print(f"{count} rings from seed {SEED} on a boot: {broken} broke the device, {not_broken} did not; the disk works, and so does the neighbour's")


if __name__ == "__main__":
    main(int(sys.argv[1]))
