"""No interrupt of a local APIC is lost: a guest and the hypervisor count them, and must agree, beside a guest that storms by itself.

    python -m qemu_tests.interrupt_storm > qemu_tests/interrupt_storm.txt

is the long form, a million IPIs and a million timer expiries; it takes half an hour and ends with 1 if one was lost. There the hostile
guest sleeps 200 us, the least that a guest's timer may take, after each few exits: an emulator skips time only when nobody runs.
"""

import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from krait import config, images
from krait.bench_linux import EXIT_LINE
from krait.emulator import Emulator, receive
from krait.machine import Machine, Media
from tests.hostile import build

LONG = 1_000_000
REST = 8
SECONDS = 7200.0
COUNTED = r"APICs +(\d+) interrupts of local timers, (\d+) of other vCPUs"


@dataclass(frozen=True)
class Counts:
    """From both ends."""

    guest_ipis: int
    guest_timers: int
    host_ipis: int
    host_timers: int
    hostile_exits: int

    def agree(self, ipis: int, timers: int) -> bool:
        """Whether nothing was lost of what was asked for, and nothing came twice."""
        return (self.host_ipis, self.host_timers) == (self.guest_ipis, self.guest_timers) == (ipis, timers)


def run(machine: Machine, ipis: int, timers: int, rest: int = 0) -> Counts:
    """One boot: the storm, and a hostile guest that stores, calls and programs timers without end; `rest`: exits after which it sleeps."""
    text = f'[[vm]]\nname = "storm"\nkind = "pv"\nmemory = "16MiB"\nworkload = "apic-storm"\ncmdline = "ipis={ipis} timers={timers}"\n'
    kernel = build.kernels()[0]
    text += f'[[vm]]\nname = "bad"\nkind = "pv"\nmemory = "8MiB"\nkernel = "{kernel}"\ncmdline = "do=storm rounds=1000000000 rest={rest}"\n'
    with tempfile.TemporaryDirectory() as folder:
        settings = config.parse(text, "storm.toml", Path(folder))
        bundle = images.write_bundle(settings, Path(folder) / "bundle.cpio", release=True, end_auto=False)
        with Emulator(machine, Media(images.hypervisor(release=True), bundle), Path(folder)) as emulator:
            emulator.console.settimeout(SECONDS)
            said = read_until(emulator, r"storm: (\d+) expiries taken|storm: .* is lost.*\n")
            emulator.console.sendall(b"info storm\r")
            said += read_until(emulator, COUNTED + ".*\n")
            emulator.console.sendall(b"info bad\r")
            bad = read_until(emulator, r"APICs[^]]*krait> ")
            emulator.console.sendall(b"poweroff\r")
            emulator.wait(SECONDS)
    taken = [re.search(pattern, said) for pattern in (r"storm: (\d+) IPIs taken", r"storm: (\d+) expiries taken")]
    host = re.search(COUNTED, said)
    assert host is not None
    ipis_taken, timers_taken = (int(found[1]) if found else 0 for found in taken)
    exits = sum(int(count) for _, count in EXIT_LINE.findall(bad.replace("\r\n", "\n")))
    return Counts(ipis_taken, timers_taken, int(host[2]), int(host[1]), exits)


def read_until(emulator: Emulator, pattern: str) -> str:
    """What the console says up to `pattern`."""
    said = ""
    while not re.search(pattern, said):
        data = receive(emulator.console)
        assert data, f"the machine ended:\n{said}"
        said += data.decode(errors="replace")
    return said


def main() -> int:
    """A million of each."""
    counts = run(Machine("qemu", icount=True, skip_idle=True), LONG, LONG, rest=REST)
    print(f"asked for {LONG} IPIs and {LONG} timer expiries: the guest took {counts.guest_ipis} and {counts.guest_timers}, "
          f"the hypervisor made {counts.host_ipis} and {counts.host_timers} pending; the hostile guest beside it made {counts.hostile_exits} exits")  # fmt: skip
    return 0 if counts.agree(LONG, LONG) and counts.hostile_exits > LONG else 1


if __name__ == "__main__":
    sys.exit(main())
