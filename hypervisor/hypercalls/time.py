"""TIME, TIMER_SET. Guest time is nanoseconds since the VM started."""
from typing import Final

from hypervisor import clock, timers
from hypervisor.abi import Error
from hypervisor.cpu import this_cpu
from hypervisor.handlers.outcome import Outcome
from hypervisor.hypercalls.answer import error, result
from hypervisor.lang import u64
from hypervisor.model import TimerKind, Vcpu

DEADLINE_BITS: Final = 56  # a guest's deadline is below 2^56 ns (two years), so that no sum overflows


def time(vcpu: Vcpu) -> Outcome:
    """Answers guest time in ns."""
    vm = vcpu.vm
    assert vm is not None
    return result(vcpu, clock.ns_of(clock.now() - vm.started_at))


def timer_set(vcpu: Vcpu) -> Outcome:
    """(RDI: guest time in ns, 0: cancel): raise EVENT_TIMER then; one that has passed raises it at once.

    Two of a vCPU are 200 us apart at least: timers.arm_for_guest.
    """
    vm = vcpu.vm
    assert vm is not None
    deadline: u64 = vcpu.regs.rdi
    if deadline >> DEADLINE_BITS != 0:
        return error(vcpu, Error.BAD_ARGUMENT)
    if deadline == 0:
        timers.cancel(vcpu.timer)
    else:
        vcpu.timer.kind = TimerKind.GUEST
        vcpu.timer.vcpu = vcpu
        timers.arm_for_guest(this_cpu(), vcpu.timer, vm.started_at + clock.ticks_of(deadline))
    return result(vcpu, 0)
