"""The end of the machine: say the result, then tell whatever runs us. Nothing here returns."""
from typing import Final

from hypervisor.abi import EXIT_OK
from hypervisor.arch_x86 import acpi, lapic, serial
from hypervisor.arch_x86.intrinsics import atomic_add_u64, atomic_xchg_u64, cli, halt_forever, magic_break, outb, pause
from hypervisor.console import capture, hide_prompt, say
from hypervisor.cpu import cpus, online, this_cpu
from hypervisor.lang import address, char_at, offsetof, struct, u8, u32, u64

ISA_DEBUG_EXIT: Final = 0xF4  # QEMU -device isa-debug-exit,iobase=0xf4: exit status value << 1 | 1
BOCHS_SHUTDOWN: Final = 0x8900  # nothing is there on a PC
SHUTDOWN: Final = "Shutdown"


STOP_LIMIT: Final = 100_000  # looks at who has stopped before those that have not are left alone


@struct
class Stop:
    """Who ends the machine, and how many of the others have halted for it."""

    by: u64  # number of the CPU + 1; 0: none
    halted: u64


state: Final = Stop()


def stop_others() -> None:
    """Halt all other CPUs, wherever they are, so that nothing happens any more but what the caller does.

    If another has called this before, the caller is the one that halts. Again by the same one: nothing.
    """
    if online.count <= 1:
        return
    me = this_cpu()
    first = atomic_xchg_u64(address(state), me.id + 1) if state.by == 0 else state.by
    if first == me.id + 1:
        return
    if first != 0:
        state.by = first
        stop_here()
    for i in range(online.count):
        if cpus[i] != me:
            lapic.send_nmi(cpus[i].apic_id)
    for _ in range(STOP_LIMIT):
        if state.halted + 1 >= online.count:
            break
        pause()


def is_stopped() -> bool:
    """Whether some CPU ends the machine: an NMI is its call."""
    return state.by != 0


def stop_here() -> None:
    """The end of a CPU that another has stopped. Does not return."""
    atomic_add_u64(address(state) + offsetof(Stop, "halted"), 1)
    halt_forever()


def say_which_cpu() -> None:
    """Where a panic happened, if there are several CPUs."""
    if online.count > 1:
        say(f"  on CPU {this_cpu().id} of {online.count}")


def leave(code: u32) -> None:
    """Print `krait: exit 0x...` and end the machine with an abi.EXIT_* code. Does not return.

    QEMU ends with status code << 1 | 1. Bochs ends with 0 (magic break) for EXIT_OK, else with 1 (shutdown port).
    A machine that knows neither is powered off by ACPI for EXIT_OK, else halts: what was said stays to be read.
    """
    cli()
    stop_others()
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
