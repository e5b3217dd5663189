"""The host CPUs by number, and the one that runs this code.

A CPU finds its Cpu by its stack pointer: all its stacks lie in one area, which begins with the address of the Cpu
(arch_x86/stacks.py). No register that a guest can write is trusted.
"""
from typing import Annotated, Final

from hypervisor.arch_x86.intrinsics import current_cpu
from hypervisor.lang import array, at, struct, u32
from hypervisor.model import MAX_CPUS, Cpu


@struct
class Online:
    """How many CPUs run: cpus[0 .. count - 1]."""

    count: u32


cpus: Final[Annotated[list[Cpu], MAX_CPUS]] = array(Cpu, MAX_CPUS)
online: Final = Online()


def this_cpu() -> Cpu:
    """The CPU that runs this code."""
    return at(Cpu, current_cpu())


def owe(work: u32) -> None:
    """Let this CPU do WORK_* before its next VM entry."""
    cpu = this_cpu()
    cpu.work |= work
