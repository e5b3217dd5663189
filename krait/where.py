"""Where a machine is that says nothing more: its program counters, with function and source line of the hypervisor."""

import os
import re
import signal
import subprocess
from pathlib import Path

from krait import paths, tools
from krait.emulator import Emulator

QEMU_RIP = re.compile(r"\b[RE]IP=([0-9a-f]+) .*?CPL=(\d)", re.DOTALL)
BOCHS_RIP = re.compile(r"^\(\d+\)\.\[\d+\] \[0x[0-9a-f]+\] ([0-9a-f]+):([0-9a-f]+) \(", re.MULTILINE)
BOCHS_NOTABLE = re.compile(r"VMENTER FAIL|PANIC|triple fault|: VMX: ", re.IGNORECASE)
BOCHS_SECONDS = 3.0
NOTABLE_LINES = 5


def where(emulator: Emulator, elf: Path) -> str:
    """A line for each CPU; on Bochs it ends the machine. The address may be a guest's: only the hypervisor's are named."""
    if emulator.wait(0) is not None:
        return "\n".join(["the emulator has ended", *notable(emulator)])
    if emulator.machine.emulator == "qemu":
        registers = str(emulator.qmp("human-monitor-command", **{"command-line": "info registers -a"}))
        places = [(int(rip, 16), f"CPL {cpl}") for rip, cpl in QEMU_RIP.findall(registers)]
    else:
        os.kill(emulator.child.process.pid, signal.SIGINT)
        emulator.wait(BOCHS_SECONDS)
        places = [(int(rip, 16), f"CS {cs}") for cs, rip in BOCHS_RIP.findall(emulator.emulator_output())]
    lines = [f"CPU {index} at {rip:#x} ({ring}) {source_of(elf, rip)}" for index, (rip, ring) in enumerate(places)]
    return "\n".join([*lines, *notable(emulator)])


def notable(emulator: Emulator) -> list[str]:
    """The last lines of Bochs' log that tell of failed VM entries, triple faults and the like."""
    log = emulator.log_dir / "bochs.log"
    if emulator.machine.emulator != "bochs" or not log.exists():
        return []
    lines = [line for line in log.read_text(errors="replace").splitlines() if BOCHS_NOTABLE.search(line)]
    return lines[-NOTABLE_LINES:]


def source_of(elf: Path, place: int) -> str:
    """Function and line of an address of the image, or an empty text when it is none."""
    command = [tools.require("addr2line"), "--functions", "--exe", str(elf), hex(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    name, _, line = done.stdout.strip().partition("\n")
    if done.returncode != 0 or name in ("", "??"):
        return ""
    return f"in {name}, {_in_tree(line)}"


def _in_tree(line: str) -> str:
    """`file:line` below the source tree; the compiler sees copies of the sources in the output folder."""
    for folder in (f"{paths.OUT}/debug/hypervisor/", f"{paths.OUT}/release/hypervisor/", f"{paths.ROOT}/"):
        line = line.removeprefix(folder)
    return line
