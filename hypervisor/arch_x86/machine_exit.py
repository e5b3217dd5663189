"""The end of the machine: say the result, then tell whatever runs us. Nothing here returns."""
from typing import Final

from hypervisor.arch_x86 import serial
from hypervisor.arch_x86.intrinsics import cli, halt_forever, inb, magic_break, outb
from hypervisor.console import hide_prompt, say
from hypervisor.lang import char_at, u32, u8

ISA_DEBUG_EXIT: Final = 0xF4  # QEMU -device isa-debug-exit,iobase=0xf4: exit status value << 1 | 1
BOCHS_E9: Final = 0xE9  # Bochs' port_e9_hack reads as its own number
BOCHS_SHUTDOWN: Final = 0x8900
SHUTDOWN: Final = "Shutdown"


def leave(code: u32) -> None:
    """Print `krait: end CODE` and end the machine with an abi.EXIT_* code. Does not return.

    QEMU ends with status code << 1 | 1. Bochs ends with 0 at its magic break, or 1 by its shutdown port where
    that is off: the printed line tells. A PC halts.
    """
    cli()
    hide_prompt()
    serial.flush()
    say(f"krait: end {code}")
    outb(ISA_DEBUG_EXIT, u8(code))
    if inb(BOCHS_E9) == BOCHS_E9:
        magic_break()
        for i in range(8):
            outb(BOCHS_SHUTDOWN, char_at(SHUTDOWN, i))
    halt_forever()
