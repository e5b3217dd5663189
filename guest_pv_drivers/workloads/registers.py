"""Fills every register with patterns of its own, gives up the CPU `switches=` times, by YIELD and by being preempted, and
finds each register as it was."""
from typing import Annotated, Final

from guest_pv_drivers import command_line, hypercall, start_info
from guest_pv_drivers.console import say
from guest_pv_drivers.workloads import register_state
from hypervisor.abi import HYPERCALL_BASE, Hypercall
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import address, struct, u32, u64

GENERAL_REGISTERS: Final = 15  # RAX, RCX, RDX, RBX, RBP, RSI, RDI, R8-R15
PREEMPTED_EVERY: Final = 64  # of so many rounds, one spins instead of yielding
SYSTEM_EVERY: Final = 32  # new patterns in the registers whose access may be an exit
SPINS: Final = 50000


@struct
class General:
    """General registers in the order of registers_exchange."""

    register: Annotated[list[u64], GENERAL_REGISTERS]


general: Final = General()


def exchange_errors(seed: u64, spins: u64) -> u64:
    """Load the general registers, give up the CPU, and count those that changed (RAX: the call's number becomes its result, 0)."""
    for i in range(1, GENERAL_REGISTERS):
        general.register[i] = register_state.pattern(seed, 40 + u64(i))
    general.register[0] = HYPERCALL_BASE + Hypercall.YIELD
    intrinsics.registers_exchange(address(general), spins, hypercall.vendor.svm)
    wrong = register_state.differs(general.register[0], 0 if spins == 0 else HYPERCALL_BASE + Hypercall.YIELD)
    for i in range(1, GENERAL_REGISTERS):
        wrong += register_state.differs(general.register[i], register_state.pattern(seed, 40 + u64(i)))
    return wrong


def registers() -> u32:
    """All rounds; stops at the first error."""
    switches = command_line.number("switches", 10000)
    seed = u64(start_info.get().vm_id) << 32
    register_state.init(start_info.get().vm_id)
    register_state.load_system(seed)
    for i in range(switches):
        register_state.load_fpu(seed)
        general_wrong = exchange_errors(seed, SPINS if i % PREEMPTED_EVERY == PREEMPTED_EVERY - 1 else 0)
        fpu_wrong = register_state.fpu_errors()
        system_wrong: u64 = 0
        if i % SYSTEM_EVERY == SYSTEM_EVERY - 1:
            system_wrong = register_state.system_errors(seed)
            seed += 1
            register_state.load_system(seed)
        if general_wrong + fpu_wrong + system_wrong != 0:
            say(f"registers CHANGED in switch {i}: {general_wrong} general, {fpu_wrong} FPU, {system_wrong} system")
            return 1
    say(f"registers ok {switches} switches")
    return 0
