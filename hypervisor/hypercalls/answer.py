"""How a hypercall ends: its result in RAX, RIP behind the instruction."""
from hypervisor.abi import Error
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import u64, wrap_u64
from hypervisor.model import Vcpu
from hypervisor.status import Status


def result(vcpu: Vcpu, value: u64) -> Outcome:
    """It worked; value is below 2^63."""
    vcpu.regs.rax = value
    return Outcome.SKIP


def error(vcpu: Vcpu, why: Error) -> Outcome:
    """It is refused."""
    vcpu.regs.rax = wrap_u64(0 - u64(why))
    return Outcome.SKIP


def not_pinned(vcpu: Vcpu, status: Status) -> Outcome:
    """guest_memory.pin did not answer OK: wait and run the call again, or refuse it."""
    if status == Status.WAIT:
        return Outcome.WAIT
    return error(vcpu, Error.NO_MEMORY if status == Status.NO_MEMORY else Error.BAD_ADDRESS)
