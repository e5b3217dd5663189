"""No interrupt of a local APIC is lost: a guest and the hypervisor count them, and must agree, beside a guest that storms by itself.

    python -m qemu_tests.interrupt_storm > qemu_tests/interrupt_storm.txt

is the long form, a million IPIs and a million timer expiries; it takes some minutes and ends with 1 if one was lost.
"""

import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from krait import config, images, paths
from krait.emulator import Emulator, receive
from krait.machine import Machine, Media
from tests.hostile import build

LONG = 1_000_000
SECONDS = 1800.0
COUNTED = r"APICs +(\d+) interrupts of local timers, (\d+) of other vCPUs"


@dataclass(frozen=True)
class Counts:
    """From both ends."""

    guest_ipis: int
    guest_timers: int
    host_ipis: int
    host_timers: int

    def agree(self, ipis: int, timers: int, exact: bool) -> bool:
        """Whether nothing was lost of what was asked for, and nothing (exact), or next to nothing, came twice.

        QEMU 7.2 delivers an external interrupt that VMRUN injects a second time when its own loop is left before the next
        #VMEXIT (helper_vmrun leaves exception_index set, cpu_handle_interrupt keeps it): about one of 20,000.
        """
        if (self.host_ipis, self.host_timers) != (ipis, timers):
            return False
        twice = (self.guest_ipis - ipis, self.guest_timers - timers)
        return twice == (0, 0) if exact else 0 <= min(twice) and max(twice) <= 5 + max(ipis, timers) // 5000


def run(machine: Machine, ipis: int, timers: int, neighbour: bool) -> Counts:
    """One boot: the storm, and with `neighbour` a hostile guest that stores, calls and programs timers without end."""
    text = f'[[vm]]\nname = "storm"\nkind = "pv"\nmemory = "16MiB"\nworkload = "apic-storm"\ncmdline = "ipis={ipis} timers={timers}"\n'
    if neighbour:
        kernel = build.kernels()[0]
        text += f'[[vm]]\nname = "bad"\nkind = "pv"\nmemory = "8MiB"\nkernel = "{kernel}"\ncmdline = "do=storm rounds=1000000000"\n'
    with tempfile.TemporaryDirectory() as folder:
        settings = config.parse(text, "storm.toml", Path(folder))
        bundle = images.write_bundle(settings, Path(folder) / "bundle.cpio", release=True, end_auto=False)
        with Emulator(machine, Media(images.hypervisor(release=True), bundle), Path(folder)) as emulator:
            emulator.console.settimeout(SECONDS)
            said = read_until(emulator, r"storm: (\d+) expiries taken|storm: .* is lost.*\n")
            emulator.console.sendall(b"info storm\r")
            said += read_until(emulator, COUNTED + ".*\n")
            emulator.console.sendall(b"poweroff\r")
            emulator.wait(SECONDS)
    taken = [re.search(pattern, said) for pattern in (r"storm: (\d+) IPIs taken", r"storm: (\d+) expiries taken")]
    host = re.search(COUNTED, said)
    assert host is not None
    ipis_taken, timers_taken = (int(found[1]) if found else 0 for found in taken)
    return Counts(ipis_taken, timers_taken, int(host[2]), int(host[1]))


def read_until(emulator: Emulator, pattern: str) -> str:
    """What the console says up to `pattern`."""
    said = ""
    while not re.search(pattern, said):
        data = receive(emulator.console)
        assert data, f"the machine ended:\n{said}"
        said += data.decode(errors="replace")
    return said


def main() -> int:
    """A million of each alone, because an emulator skips idle time only when nobody runs; then fewer beside the other guest."""
    good = True
    for ipis, timers, neighbour in ((LONG, LONG, False), (20_000, 300, True)):
        counts = run(Machine("qemu", icount=True, skip_idle=True), ipis, timers, neighbour)
        beside = " beside a hostile guest" if neighbour else ""
        print(f"asked for {ipis} IPIs and {timers} timer expiries{beside}: the guest took {counts.guest_ipis} and {counts.guest_timers}, "
              f"the hypervisor made {counts.host_ipis} and {counts.host_timers} pending")  # fmt: skip
        good = good and counts.agree(ipis, timers, exact=False)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
