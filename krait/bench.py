"""`krait bench exits`: what one operation of a guest costs, in instructions, on an emulator that counts them.

The PV guest of `configs/bench-exits.toml` does each operation many times between two readings of the TSC, which under
QEMU's `-icount shift=0` and under Bochs moves by one for each instruction, and prints `bench: NAME COUNT`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from krait import config, images, paths, progress, result
from krait.emulator import Emulator, receive
from krait.machine import EmulatorName, Machine, Media
from krait.outcome import ExitCode, KraitError

CONFIG = paths.CONFIGS / "bench-exits.toml"
OPERATIONS = ("hypercall", "cpuid", "out_emulated", "rdmsr", "lapic_mmio", "self_ipi", "fresh_page")
PROMISED: dict[EmulatorName, dict[str, int]] = {
    "qemu": {"hypercall": 150, "cpuid": 200, "out_emulated": 300, "rdmsr": 200, "lapic_mmio": 700, "self_ipi": 1500, "fresh_page": 1100},
    "bochs": {"hypercall": 200, "cpuid": 250, "fresh_page": 1300},
}
"""Upper bounds, in instructions; docs/numbers.md says where they come from."""

LINE = re.compile(r"^\[[a-z0-9_-]+\] bench: ([a-z_]+) ([0-9]+)\s*$", re.MULTILINE)
SECONDS = 300.0


@dataclass(frozen=True)
class Report:
    """The numbers of one run; as JSON it has these very keys."""

    emulator: EmulatorName
    vendor: str
    instructions: dict[str, int]


def exits(emulator: EmulatorName) -> Report:
    """Build the release image, run the benchmark and read its numbers; KraitError when one is missing."""
    machine = Machine(emulator, icount=emulator == "qemu")
    with paths.claimed(paths.OUT / "run" / f"bench-exits-{emulator}") as folder:
        bundle = images.write_bundle(config.load(CONFIG), folder / "bundle.cpio", release=True, end_auto=True)
        media = Media(images.hypervisor(release=True), bundle)
        with progress.stage(f"bench exits on {emulator}"):
            text = console_of(machine, media, folder)
        (folder / "console.log").write_text(text)
    return Report(emulator, machine.vendor, read(text))


def console_of(machine: Machine, media: Media, folder: Path, ends: tuple[result.Status, ...] = (result.Status.OK,)) -> str:
    """Boot until the machine ends, and all that its console said; KraitError when that took too long, or was no end of `ends`."""
    with Emulator(machine, media, folder) as emulator:
        emulator.console.settimeout(SECONDS)
        text = bytearray()
        try:
            while data := receive(emulator.console):
                text += data
        except TimeoutError as error:
            raise KraitError(f"nothing was printed for {SECONDS:g} s:\n{text.decode(errors='replace')}", ExitCode.TIMEOUT) from error
        exit_status = emulator.wait(SECONDS)
    said = text.decode(errors="replace")
    status = result.judge(machine, -1 if exit_status is None else exit_status, said)
    if status not in ends:
        raise KraitError(f"{status.value}; the console said:\n{said}")
    return said


def read(console: str) -> dict[str, int]:
    """The numbers of the guest's `bench:` lines, in the order of `OPERATIONS`."""
    found = {name: int(count) for name, count in LINE.findall(console)}
    missing = [name for name in OPERATIONS if name not in found]
    if missing:
        raise KraitError(f"the benchmark printed no number for: {', '.join(missing)}; the console said:\n{console}")
    return {name: found[name] for name in OPERATIONS}
