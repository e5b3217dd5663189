"""What one exit of each kind costs in TSC ticks (under `-icount shift=0`: instructions), loop included."""
from typing import Final

from guest_pv_drivers import apic, command_line, hypercall, memory
from guest_pv_drivers.console import say
from hypervisor.abi import HYPERCALL_BASE, Hypercall
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import address, struct, u32, u64

IA32_APIC_BASE: Final = 0x1B
POST_PORT: Final = 0x80


@struct
class CpuidResult:
    """EAX, EBX, ECX, EDX."""

    eax: u32
    ebx: u32
    ecx: u32
    edx: u32


result: Final = CpuidResult()


def bench_exits() -> u32:
    """Measure and print one line an operation; `count=` operations each."""
    n = command_line.number("count", 1000)
    intrinsics.cli()
    start = intrinsics.rdtsc()
    for _ in range(n):
        hypercall.call(HYPERCALL_BASE + Hypercall.VERSION, 0, 0, 0)
    report("hypercall", start, n)
    start = intrinsics.rdtsc()
    for _ in range(n):
        intrinsics.cpuid(0, 0, address(result))
    report("cpuid", start, n)
    start = intrinsics.rdtsc()
    for _ in range(n):
        intrinsics.outb(POST_PORT, 0)
    report("out_emulated", start, n)
    start = intrinsics.rdtsc()
    for _ in range(n):
        intrinsics.rdmsr(IA32_APIC_BASE)
    report("rdmsr", start, n)
    bench_apic(n)
    first = memory.frames.count - n
    start = intrinsics.rdtsc()
    for frame in range(first, first + n):
        intrinsics.store_u64(frame * memory.PAGE_SIZE, 1)
    report("fresh_page", start, n)
    return 0


def bench_apic(n: u64) -> None:
    """Accesses to the local APIC's page, one by one, and IPIs to oneself from the write to ICR to behind the handler with its EOI."""
    apic.enable()
    start = intrinsics.rdtsc()
    for _ in range(n):
        apic.write(apic.TPR, 0)
        apic.read(apic.TPR)
    report("lapic_mmio", start, 2 * n)
    before = apic.taken.count[0]
    intrinsics.sti()
    start = intrinsics.rdtsc()
    for _ in range(n):
        apic.interrupt_self()
    report("self_ipi", start, n)
    intrinsics.cli()
    assert apic.taken.count[0] - before == n, "an interrupt was lost"


def report(name: str, start: u64, n: u64) -> None:
    """One line for the host side's `bench`."""
    ticks = intrinsics.rdtsc() - start
    say(f"bench: {name} {ticks // n}")
