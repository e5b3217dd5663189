"""A guest resets itself: it is started again from the bundle, or ended if it has no reboot left or does nothing else.

Its memory is given back a piece at a time (vm.reap_some), then vm_config.boot_again loads the kernel anew: fresh frames are
zeroed, so nothing of the life before is left. Other VMs do not notice.
"""
from typing import Final

from hypervisor import clock, guest_console, log
from hypervisor.abi import REBOOTS_UNLIMITED
from hypervisor.abi_channel import EventKind
from hypervisor.channel import events
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import address, text_at, u64
from hypervisor.model import Vm, VmState

EXIT_CODE_RESET: Final = 2  # of a VM that is not started again
HASTY_NS: Final[u64] = 1_000_000_000
HASTY_MOST: Final = 8  # so a VM that can only reset itself is ended after so many lines, any other prints one a second at most


def ask(vm: Vm, how: str) -> Outcome:
    """The guest wants to start again, by `how`. The answer ends the exit: STOP."""
    guest_console.finish_line(vm)
    name = text_at(address(vm.name))
    hasty = clock.now() - vm.started_at < clock.ticks_of(HASTY_NS)
    vm.hasty_reboots = vm.hasty_reboots + 1 if hasty else 0
    if vm.hasty_reboots > HASTY_MOST:
        return refuse(vm, f"vm '{name}' ends: {how}, the {vm.hasty_reboots}th in a row within a second of its start")
    if vm.reboots >= vm.reboots_most and vm.reboots_most != REBOOTS_UNLIMITED:
        return refuse(vm, f"vm '{name}' ends by {how}: of {vm.reboots_most} reboots none is left")
    vm.reboots += 1
    log.info(f"vm '{name}' reboots by {how} ({vm.reboots})")
    events.happened(vm, EventKind.REBOOTING, vm.reboots, how)
    vm.state = VmState.REBOOTING
    return Outcome.STOP


def refuse(vm: Vm, line: str) -> Outcome:
    """It ends instead."""
    log.warning(line)
    vm.exit_code = EXIT_CODE_RESET
    vm.state = VmState.ENDED
    return Outcome.STOP
