"""The lines of the boot: one a phase, with the time, the phase's name and what was found."""
from hypervisor import clock, log
from hypervisor.abi import EXIT_PANIC
from hypervisor.arch_x86 import machine_exit
from hypervisor.console import say
from hypervisor.lang import u32, u64
from hypervisor.log import Level


def found(name: str, text: str) -> None:
    """`[  0.0123] name      text`. Time is seconds since main began, zero until the clock runs."""
    tenths_of_ms: u64 = clock.since_boot_us() // 100
    seconds = tenths_of_ms // 10000
    a = tenths_of_ms // 1000 % 10
    b = tenths_of_ms // 100 % 10
    c = tenths_of_ms // 10 % 10
    d = tenths_of_ms % 10
    say(f"[{seconds:3}.{a}{b}{c}{d}] {name:<11} {text}")
    log.keep(Level.INFO, f"{name}: {text}")


def refuse(name: str, text: str, code: u32) -> None:
    """A phase that cannot go on: one line, then the machine ends with `code`. Does not return."""
    found(name, text)
    machine_exit.leave(code)


def require(holds: bool, name: str, text: str) -> None:
    """End the machine with `text` unless `holds`."""
    if not holds:
        refuse(name, text, EXIT_PANIC)
