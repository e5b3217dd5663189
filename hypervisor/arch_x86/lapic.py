"""The local APIC: x2APIC by MSRs where the CPU has it, else xAPIC by MMIO; one-shot timer (TSC deadline where present).

Intel SDM vol. 3A chapter 11 "Advanced Programmable Interrupt Controller (APIC)", AMD APM vol. 2 chapter 16.
"""
from typing import Final

from hypervisor import clock
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.intrinsics import load_u32, mul_shift, pause, rdmsr, rdtsc, store_u32, wrmsr
from hypervisor.lang import struct, u32, u64

IA32_APIC_BASE: Final = 0x1B
APIC_BASE_ENABLE: Final = 0x800
APIC_BASE_X2APIC: Final = 0x400
APIC_BASE_ADDRESS: Final[u64] = 0xF_FFFF_FFFF_F000
IA32_X2APIC_FIRST: Final = 0x800
IA32_TSC_DEADLINE: Final = 0x6E0

# Registers: MMIO offsets; the x2APIC MSR is IA32_X2APIC_FIRST + offset / 16.
ID: Final = 0x020
VERSION: Final = 0x030
TPR: Final = 0x080
EOI: Final = 0x0B0
SVR: Final = 0x0F0
ESR: Final = 0x280
ICR: Final = 0x300
ICR_HIGH: Final = 0x310
LVT_TIMER: Final = 0x320
LVT_THERMAL: Final = 0x330
LVT_PERF: Final = 0x340
LVT_LINT0: Final = 0x350
LVT_LINT1: Final = 0x360
LVT_ERROR: Final = 0x370
TIMER_INITIAL: Final = 0x380
TIMER_CURRENT: Final = 0x390
TIMER_DIVIDE: Final = 0x3E0

SVR_ENABLE: Final = 0x100
LVT_MASKED: Final = 0x10000
LVT_NMI: Final = 0x400
LVT_TSC_DEADLINE: Final = 0x40000
DIVIDE_BY_1: Final = 0xB
LONGEST_COUNT: Final[u64] = 0xFFFF_FFFF

# Interrupt command register: delivery mode, level; the destination's APIC ID is in the upper half.
ICR_NMI: Final = 0x400
ICR_INIT: Final = 0x500
ICR_STARTUP: Final = 0x600
ICR_ASSERT: Final = 0x4000
ICR_PENDING: Final = 0x1000
PENDING_LIMIT: Final = 1_000_000  # reads before a stuck interrupt is given up
BROADCAST: Final = 0xFF

TIMER_VECTOR: Final = 0x40
SPURIOUS_VECTOR: Final = 0x4F  # its low four bits must be ones on old CPUs


@struct
class Lapic:
    """How this CPU's local APIC is reached, and what its timer counts in."""

    base: u64
    x2apic: bool
    tsc_deadline: bool
    timer_khz: u64  # counts per millisecond, divisor 1; 0 in TSC deadline mode
    counts_per_tick: u64  # 32.32 fixed point


lapic: Final = Lapic()


def init() -> None:
    """Enable the local APIC with everything masked but NMI on LINT1; x2APIC if the CPU has it."""
    base = rdmsr(IA32_APIC_BASE)
    lapic.base = base & APIC_BASE_ADDRESS
    lapic.x2apic = features.x2apic
    lapic.tsc_deadline = features.tsc_deadline
    # The enable bit is never cleared: Bochs ignores its being set again.
    wanted = base | APIC_BASE_ENABLE
    if lapic.x2apic:
        wanted = wanted | APIC_BASE_X2APIC
    if wanted != base:
        wrmsr(IA32_APIC_BASE, wanted)
    _write(TPR, 0)
    _write(LVT_TIMER, LVT_MASKED)
    _write(LVT_LINT0, LVT_MASKED)
    _write(LVT_LINT1, LVT_NMI)
    _write(LVT_ERROR, LVT_MASKED)
    _write(SVR, SVR_ENABLE | SPURIOUS_VECTOR)


def apic_id() -> u32:
    """This CPU's APIC ID: 8 bits (xAPIC) or 32 (x2APIC)."""
    value = _read(ID)
    return value if lapic.x2apic else value >> 24


def start_counting() -> None:
    """Let the timer count down from its longest count, masked: to be measured against the TSC."""
    _write(TIMER_DIVIDE, DIVIDE_BY_1)
    _write(LVT_TIMER, LVT_MASKED | TIMER_VECTOR)
    _write(TIMER_INITIAL, 0xFFFF_FFFF)


def counted() -> u64:
    """Counts since start_counting."""
    return LONGEST_COUNT - _read(TIMER_CURRENT)


def start_timer(timer_khz: u64) -> None:
    """Let the timer interrupt at TIMER_VECTOR. `timer_khz` as measured; ignored in TSC deadline mode."""
    _write(TIMER_INITIAL, 0)
    if lapic.tsc_deadline:
        _write(LVT_TIMER, LVT_TSC_DEADLINE | TIMER_VECTOR)
        return
    assert timer_khz != 0
    lapic.timer_khz = timer_khz
    lapic.counts_per_tick = (timer_khz << 32) // clock.tsc_khz()
    _write(LVT_TIMER, TIMER_VECTOR)


def arm_timer(deadline: u64) -> None:
    """Interrupt once at TIMER_VECTOR when the TSC reaches `deadline`; at once if that has passed.

    A deadline beyond the timer's longest count interrupts earlier; timers.expire then arms the rest.
    """
    if lapic.tsc_deadline:
        wrmsr(IA32_TSC_DEADLINE, deadline)
        return
    now = rdtsc()
    counts: u64 = 1
    if deadline > now:
        counts = mul_shift(deadline - now, lapic.counts_per_tick, 32) + 1
        if counts > LONGEST_COUNT or (deadline - now) >> 48 != 0:
            counts = LONGEST_COUNT
    _write(TIMER_INITIAL, u32(counts))


def eoi() -> None:
    """End of the interrupt being served."""
    _write(EOI, 0)


def can_reach(apic_id: u32) -> bool:
    """Whether an interrupt can be sent to this CPU: an xAPIC knows IDs of 8 bits."""
    return lapic.x2apic or apic_id < BROADCAST


def send(apic_id: u32, vector: u32) -> None:
    """Interrupt another CPU."""
    _command(apic_id, ICR_ASSERT | vector)


def send_nmi(apic_id: u32) -> None:
    """A non-maskable interrupt for another CPU."""
    _command(apic_id, ICR_ASSERT | ICR_NMI)


def send_init(apic_id: u32) -> None:
    """Reset another CPU; it then waits for send_startup."""
    _command(apic_id, ICR_ASSERT | ICR_INIT)


def send_startup(apic_id: u32, page: u32) -> None:
    """Let a CPU that was reset begin in real mode at this page, below 1 MiB."""
    _command(apic_id, ICR_ASSERT | ICR_STARTUP | page)


def _command(apic_id: u32, command: u32) -> None:
    """Write the interrupt command register (SDM vol. 3A 11.6.1, 11.12.9)."""
    if lapic.x2apic:
        wrmsr(IA32_X2APIC_FIRST + (ICR >> 4), u64(apic_id) << 32 | command)
        return
    for _ in range(PENDING_LIMIT):
        if _read(ICR) & ICR_PENDING == 0:
            break
        pause()
    _write(ICR_HIGH, apic_id << 24)
    _write(ICR, command)


def _read(register: u32) -> u32:
    if lapic.x2apic:
        return u32(rdmsr(u32(IA32_X2APIC_FIRST + (register >> 4))))
    return load_u32(lapic.base + register)


def _write(register: u32, value: u32) -> None:
    if lapic.x2apic:
        wrmsr(u32(IA32_X2APIC_FIRST + (register >> 4)), value)
    else:
        store_u32(lapic.base + register, value)
