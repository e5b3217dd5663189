"""The end of the machine: say the result, then tell whatever runs us. Nothing here returns."""
from typing import Final

from hypervisor.abi import EXIT_OK
from hypervisor.arch_x86 import acpi, serial
from hypervisor.arch_x86.intrinsics import cli, halt_forever, magic_break, outb
from hypervisor.console import capture, hide_prompt, say
from hypervisor.lang import char_at, u8, u32

ISA_DEBUG_EXIT: Final = 0xF4  # QEMU -device isa-debug-exit,iobase=0xf4: exit status value << 1 | 1
BOCHS_SHUTDOWN: Final = 0x8900  # nothing is there on a PC
SHUTDOWN: Final = "Shutdown"


def leave(code: u32) -> None:
    """Print `krait: exit 0x...` and end the machine with an abi.EXIT_* code. Does not return.

    QEMU ends with status code << 1 | 1. Bochs ends with 0 (magic break) for EXIT_OK, else with 1 (shutdown port).
    A machine that knows neither is powered off by ACPI for EXIT_OK, else halts: what was said stays to be read.
    """
    cli()
    capture.active = False
    hide_prompt()
    serial.flush()
    say(f"krait: exit {code:#x}")
    serial.drain()
    outb(ISA_DEBUG_EXIT, u8(code))
    if code == EXIT_OK:
        magic_break()
    for i in range(8):
        outb(BOCHS_SHUTDOWN, char_at(SHUTDOWN, i))
    if code == EXIT_OK:
        acpi.power_off()
    halt_forever()
