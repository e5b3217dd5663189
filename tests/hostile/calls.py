"""Random hypercalls on a host library: any number and any argument, the VM set going again after each call that ends it.

In the subset. What a call may answer is checked; a sanitizer, the ledger's check and the traps of the subset watch the rest.
"""
from typing import Annotated, Final

from hypervisor.abi import HYPERCALL_BASE, HYPERCALL_COUNT
from hypervisor.cpu import cpus
from hypervisor.handlers import hypercall
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import address, i64, sext_i64, struct, u32, u64, wrap_u64
from hypervisor.memory import ledger_check
from hypervisor.model import Vcpu, VcpuState, Vm, VmState
from hypervisor.paging import pressure
from tests.hostile import chance
from tests.hostile.chance import below, nasty

WAITS_MOST: Final = 4
LOWEST_ERROR: Final = 6
CHECKED_EACH: Final = 4096  # calls between two checks of the whole ledger
RAM_BITS: Final = 12


@struct
class Tally:
    """What the calls answered."""

    results: u64
    errors: Annotated[list[u64], 7]
    waits: u64
    ended: u64
    wrong: u64


tally: Final = Tally()


def the_cpu() -> u64:
    """For intrinsics.current_cpu: the one CPU."""
    return address(cpus[0])


def argument(memory_bytes: u64) -> u64:
    """An address or a frame in memory, or around its end, or anything."""
    match u32(below(5)):
        case 0:
            return below(memory_bytes)
        case 1:
            return below(memory_bytes) >> RAM_BITS
        case 2:
            return wrap_u64(memory_bytes - below(8192))
        case 3:
            return below(64)
        case _:
            return nasty()


def call_once(vm: Vm, vcpu: Vcpu) -> None:
    """One call, run again while it waits."""
    regs = vcpu.regs
    number: u64 = wrap_u64(HYPERCALL_BASE + (below(HYPERCALL_COUNT) if below(32) != 0 else nasty()))
    regs.rdi = argument(vm.memory_bytes)
    regs.rsi = argument(vm.memory_bytes)
    regs.rdx = argument(vm.memory_bytes)
    regs.rax = number
    outcome = hypercall.handle(vcpu, vcpu.exit)
    waits: u32 = 0
    while outcome == Outcome.WAIT and waits < WAITS_MOST:
        waits += 1
        tally.waits += 1
        vcpu.state = VcpuState.RUNNABLE
        regs.rax = number
        outcome = hypercall.handle(vcpu, vcpu.exit)
    pressure.stop_waiting(vcpu)
    vcpu.state = VcpuState.RUNNABLE
    if vm.state != VmState.RUNNING:
        vm.state = VmState.RUNNING
        tally.ended += 1
    elif outcome != Outcome.WAIT:
        note(sext_i64(regs.rax))


def note(answer: i64) -> None:
    """Count it."""
    if answer >= 0:
        tally.results += 1
    elif answer >= -LOWEST_ERROR:
        tally.errors[u64(0 - answer)] += 1
    else:
        tally.wrong += 1


def calls(vm: Vm, count: u64) -> None:
    """`count` of them by the VM's first vCPU, the ledger checked now and then."""
    vcpu = vm.vcpus[0]
    assert vcpu is not None
    for i in range(count):
        call_once(vm, vcpu)
        if i % CHECKED_EACH == 0 and ledger_check.check() != 0:
            tally.wrong += 1
