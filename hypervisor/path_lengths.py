"""The longest path between two returns to the run loop, by what it was for. In images built with `--measure-paths` alone.

Under QEMU's `-icount shift=0`, on one CPU, a TSC tick is an instruction. `krait bench paths` reads what `report` prints.
"""
from typing import Annotated, Final

from hypervisor import clock
from hypervisor.arch_x86.vm_exit import CAUSE_NAMES, EXIT_CAUSES
from hypervisor.console import say
from hypervisor.lang import struct, u32, u64
from hypervisor.model import WORK_NAMES

KINDS: Final = EXIT_CAUSES + 32  # exits by cause, then pieces of work by bit of Cpu.work


@struct
class PathLengths:
    """In TSC ticks."""

    started: u64
    count: Annotated[list[u64], KINDS]
    longest: Annotated[list[u64], KINDS]


lengths: Final = PathLengths()


def begin() -> None:
    """The run loop lets go."""
    lengths.started = clock.now()


def end_exit(cause: u32) -> None:
    """It is back, from the handler of an exit."""
    keep(cause, clock.now() - lengths.started)


def end_work(bit: u32) -> None:
    """It is back, from the work that this bit of Cpu.work asked for."""
    ticks = clock.now() - lengths.started
    for place in range(32):
        if bit >> place == 1:
            keep(u32(EXIT_CAUSES + place), ticks)


def keep(kind: u32, ticks: u64) -> None:
    """The longest of its kind."""
    lengths.count[kind] += 1
    lengths.longest[kind] = max(lengths.longest[kind], ticks)


def report() -> None:
    """One line for each kind that occurred."""
    for kind in range(KINDS):
        if lengths.count[kind] != 0:
            name = CAUSE_NAMES[kind] if kind < EXIT_CAUSES else WORK_NAMES[kind - EXIT_CAUSES]
            group = "exit" if kind < EXIT_CAUSES else "work"
            say(f"path: {group} {name}: longest {lengths.longest[kind]} of {lengths.count[kind]}")
