"""Four PV guests keep one disk busy: every request completes, and each guest sees as many ends as it made requests.

    .venv/bin/python -m qemu_tests.many_requests 1000000 > qemu_tests/many_requests.txt
"""

import re
import sys
import tempfile
from pathlib import Path

from krait.machine import Machine
from qemu_tests import harness
from qemu_tests.harness import Table, VmTable

GUESTS = 4
SECONDS = 3000.0
SINGLE = 16
"""Of so many requests one is made alone; the others have 31 beside them."""
RESULT = re.compile(r"\[g(\d)\] bench: disk depth (\d+) requests (\d+) ticks \d+ notifications (\d+)")


def requests(machine: Machine, count: int, folder: Path) -> int:
    """At least `count` requests in all, a part of them one by one and the rest with 32 in flight; how many. AssertionError when one is lost."""
    single = count // (GUESTS * SINGLE)
    each = -(-count // GUESTS) - single
    vms: list[VmTable] = [
        {"name": f"g{number}", "kind": "pv", "memory": "16MiB", "workload": "disk-bench", "cmdline": f"count={each} single={single}",
         "disk": [{"disk": "shared", "start": f"{4 * (number + 1)}MiB", "size": "4MiB"}]}
        for number in range(GUESTS)
    ]  # fmt: skip
    disk: Table = {"name": "shared", "bus": "virtio", "size": f"{4 * GUESTS + 4}MiB"}
    console = harness.start(machine, vms, folder, True, True, None, [disk])
    try:
        text = console.wait_end(SECONDS).text
    finally:
        console.close()
    ended = {(int(guest), int(depth)): int(number) for guest, depth, number, _ in RESULT.findall(text)}
    assert ended == {(guest, depth): number for guest in range(GUESTS) for depth, number in ((1, single), (32, each))}, ended
    return sum(ended.values())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        count = requests(Machine("qemu"), int(sys.argv[1]), Path(folder))
    print(f"{count} requests of {GUESTS} guests to one disk, 1 and 32 in flight: every one ended once")


if __name__ == "__main__":
    main()
