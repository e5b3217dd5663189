"""What costs a hypervisor time: exits of every kind without pause, timers and interrupts as fast as they can be had, and a CPU that
never takes an interrupt."""
from typing import Annotated, Final

from guest_pv_drivers import hypercall
from hypervisor.abi import CPUID_KRAIT_FEATURES, Hypercall
from hypervisor.arch_x86 import intrinsics
from hypervisor.arch_x86.intrinsics import inb, load_u32, outb, rdtsc, store_u32
from hypervisor.lang import address, array, u16, u32, u64
from tests.hostile import chance, cpu, machine, registers
from tests.hostile.machine import APIC, ONCE

APIC_SPURIOUS: Final = 0xF0
APIC_COMMAND: Final = 0x300
APIC_COMMAND_HIGH: Final = 0x310
APIC_TIMER: Final = 0x320
APIC_TIMER_COUNT: Final = 0x380
APIC_TIMER_DIVIDE: Final = 0x3E0
TO_SELF: Final = 1 << 18
TO_ALL: Final = 2 << 18
APIC_VECTOR: Final = 60
UNKNOWN_PORT: Final = 0x9000
BATCH: Final = 64


def ticks(ms: u64) -> u64:
    """TSC ticks of `ms`."""
    r: Annotated[list[u32], 4] = array(u32, 4)
    intrinsics.cpuid(CPUID_KRAIT_FEATURES, 0, address(r))
    return ms * r[2]


def spin() -> u32:
    """Spin for `ms=` without an exit, interrupts off."""
    end = rdtsc() + ticks(machine.number("ms=", 200))
    while rdtsc() < end:
        pass
    machine.say("spun with interrupts off")
    return 0


def storm() -> u32:
    """`rounds=` times 64 exits, timers or interrupts, of a kind that the seed chooses for each round. With `rest=N` a round has N of them,
    and then sleeps until a timer, set to the earliest moment that there is."""
    if not machine.machine.pv:
        machine.start_timer(1000, ONCE)
    if machine.has_apic():
        start_apic()
    rounds: u64 = machine.number("rounds=", 100)
    rest: u64 = machine.number("rest=", 0)
    for _ in range(rounds):
        kind = u32(chance.below(8))
        for _ in range(BATCH if rest == 0 else rest):
            one(kind)
        if rest != 0:
            sleep()
    machine.say(f"storm of {rounds} rounds over, {'interrupted' if cpu.interrupts.count > 0 else 'not interrupted'}")
    return 0


def sleep() -> None:
    """Until an interrupt, the timer's at the latest."""
    before = cpu.interrupts.count
    machine.start_timer(1, ONCE)
    while cpu.interrupts.count == before:
        intrinsics.halt_once()


def start_apic() -> None:
    """On, its timer to fire once whenever a count is written: a periodic one would let a slow machine do nothing but interrupts."""
    store_u32(APIC + APIC_SPURIOUS, 0x1FF & 0x13F)
    store_u32(APIC + APIC_TIMER_DIVIDE, 0xB)
    store_u32(APIC + APIC_TIMER, APIC_VECTOR)
    store_u32(APIC + APIC_TIMER_COUNT, 1)


def one(kind: u32) -> None:
    """One of the storm."""
    r: Annotated[list[u32], 4] = array(u32, 4)
    match kind:
        case 0:
            intrinsics.cpuid(0, 0, address(r))
        case 1:
            registers.read_msr(0x1B)
        case 2:
            outb(u16(UNKNOWN_PORT + (chance.draw() & 0xFFF)), 0)
            inb(UNKNOWN_PORT)
        case 3:
            hypercall.yield_cpu()
        case 4:
            intrinsics.interrupt_window()
        case _:
            of_its_own(kind)


def of_its_own(kind: u32) -> None:
    """What only PV guests have, or only others."""
    if machine.machine.pv:
        if kind == 5:
            machine.start_timer(1, ONCE)
            intrinsics.interrupt_window()
        elif kind == 6:
            hypercall.call1(Hypercall.WAKE, 0)
        else:
            hypercall.call2(Hypercall.CONSOLE_READ, address(cpu.user_page.written), 8)
    elif machine.has_apic():
        if kind == 5:
            store_u32(APIC + APIC_COMMAND, TO_SELF | APIC_VECTOR)
            intrinsics.interrupt_window()
        elif kind == 6:
            store_u32(APIC + APIC_COMMAND_HIGH, u32(chance.draw() & 0xFF000000))
            store_u32(APIC + APIC_COMMAND, TO_ALL | APIC_VECTOR)
        else:
            load_u32(APIC + (chance.draw() & 0x3F0))
            store_u32(APIC + APIC_TIMER_COUNT, 1)
    elif kind == 5:
        machine.start_timer(1000, ONCE)
        intrinsics.interrupt_window()
    else:
        inb(0x20)
        intrinsics.interrupt_window()
