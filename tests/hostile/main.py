"""Runs what the command line asks for (`do=NAME seed=N count=N`) and ends with its result."""
from typing import Annotated, Final

from hypervisor.lang import u8, u32, u64
from tests.hostile import chance, cpu, machine
from tests.hostile.events import events
from tests.hostile.fuzz_hypercalls import fuzz_hypercalls
from tests.hostile.identification import identification
from tests.hostile.memory import memory
from tests.hostile.privileged import privileged
from tests.hostile.registers import control_registers, msrs, write_cr0
from tests.hostile.storms import spin, storm
from tests.hostile.strange_code import strange_code

COUNT: Final = 11
NAMES: Final[Annotated[list[str], COUNT]] = [
    "privileged", "msrs", "control-registers", "cpuid", "cr0-nw", "memory", "spin", "storm",
    "hypercalls", "strange-code", "events"]
DEEDS: Final = (privileged, msrs, control_registers, identification, write_cr0, memory, spin, storm, fuzz_hypercalls, strange_code, events)


def main(start: u64, information: u64) -> None:
    """Called by start.S; does not return."""
    machine.init(start, information)
    cpu.init()
    chance.seed(machine.number("seed=", 1))
    for i in range(COUNT):
        if machine.asked(NAMES[i]):
            machine.end(u8(DEEDS[i]() & 0xFF))
    machine.say("FAILED: nothing that I know is asked for")
    machine.end(2)
