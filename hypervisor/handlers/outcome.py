"""What a handler tells the run loop."""
from enum import IntEnum


class Outcome(IntEnum):
    """Where RIP goes and whether the vCPU goes on."""

    RESUME = 0  # run on; RIP stays (fault fixed, or the handler set it)
    SKIP = 1  # run on behind the instruction (VmExit.length)
    BLOCK = 2  # RIP moves, then the vCPU sleeps until an event
    WAIT = 3  # RIP stays; the exit is dispatched again: at once, or once woken if pressure.wait has put the vCPU to sleep
    STOP = 4  # this VM is stopped (the handler has said why)
