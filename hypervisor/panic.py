"""The end by our own fault: say why and where, then end the machine with EXIT_PANIC."""
from hypervisor.abi import EXIT_PANIC
from hypervisor.arch_x86 import backtrace, machine_exit, serial
from hypervisor.arch_x86.intrinsics import cli, frame_pointer
from hypervisor.console import capture, hide_prompt, say


def panic(text: str) -> None:
    """Print `PANIC: text` and a back-trace, polled; end the machine. Does not return. For our bugs, never for guest input."""
    cli()
    machine_exit.stop_others()
    capture.active = False
    hide_prompt()
    serial.flush()
    say("")
    say(f"PANIC: {text}")
    machine_exit.say_which_cpu()
    backtrace.show(frame_pointer())
    machine_exit.leave(EXIT_PANIC)
