"""All vCPUs at once. `spin-all`: each counts for `ms=`. `ipi-storm`: each sends `ipis=` interrupts, one at a time, to the next in the
ring; then vCPU 0 sends as many to all others at once. One that does not come within a minute is lost."""
from typing import Final

from guest_pv_drivers import apic, clock, command_line, hypercall, vcpus
from guest_pv_drivers.console import say
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import u32, u64

JOB_COUNT: Final = 0  # main.JOBS
JOB_ENABLE: Final = 1
JOB_RING: Final = 2
JOB_TAKE: Final = 3
PATIENCE_NS: Final[u64] = 60_000_000_000
ITERATIONS_PER_LOOK: Final = 20000
EXIT_FAILED: Final = 1


def spin_all() -> u32:
    """Least and most of the counts."""
    if not vcpus.start():
        return EXIT_FAILED
    vcpus.announce(JOB_COUNT)
    vcpus.finish(0, count_job(0))
    vcpus.wait_for_all()
    least = vcpus.jobs.result[0]
    most = least
    for vcpu in range(1, vcpus.count()):
        least = min(least, vcpus.jobs.result[vcpu])
        most = max(most, vcpus.jobs.result[vcpu])
    say(f"spin-all: {vcpus.count()} vCPUs counted, the least {least}, the most {most}")
    return 0


def count_job(_vcpu: u32) -> u64:
    """Count until the time is over."""
    end = clock.now_ns() + command_line.number("ms", 100) * clock.NS_PER_MS
    counted: u64 = 0
    while counted == 0 or clock.now_ns() < end:
        for _ in range(ITERATIONS_PER_LOOK):
            intrinsics.compiler_barrier()
        counted += ITERATIONS_PER_LOOK
    return counted


def ipi_storm() -> u32:
    """How many were taken in each part; 1: some were lost."""
    if not vcpus.start():
        return EXIT_FAILED
    vcpus.announce(JOB_ENABLE)
    vcpus.finish(0, enable_job(0))
    vcpus.wait_for_all()
    vcpus.announce(JOB_RING)
    vcpus.finish(0, ring_job(0))
    vcpus.wait_for_all()
    report("one by one", 0)
    vcpus.announce(JOB_TAKE)
    broadcast()
    vcpus.finish(0, 0)
    vcpus.wait_for_all()
    report("to all others", 1)
    return 0 if taken_by_all(0) == expected(0) + expected(1) else EXIT_FAILED


def ipis() -> u64:
    """How many each sends."""
    return command_line.number("ipis", 100)


def expected(first: u32) -> u64:
    """How many a part brings to the vCPUs from `first` on."""
    return ipis() * (vcpus.count() - first)


def taken_by_all(first: u32) -> u64:
    """Interrupts of all vCPUs from `first` on."""
    taken: u64 = 0
    for vcpu in range(first, vcpus.count()):
        taken += apic.came_to(u32(vcpu))
    return taken


def report(part: str, first: u32) -> None:
    """After each part."""
    say(f"ipi-storm: {part}: {taken_by_all(0) - expected(0) * first} of {expected(first)} taken")


def enable_job(_vcpu: u32) -> u64:
    """The local APIC of each takes interrupts."""
    apic.enable()
    return 0


def ring_job(vcpu: u32) -> u64:
    """To the next one, each time once it has taken the one before. One that is lost is missing in the report."""
    following = u32((vcpu + 1) % vcpus.count())
    for _ in range(ipis()):
        before = apic.came_to(following)
        apic.interrupt_one(following)
        came(following, before)
    return 0


def broadcast() -> None:
    """To all others, each time once all have taken the one before."""
    for number in range(ipis()):
        apic.interrupt_others()
        for vcpu in range(1, vcpus.count()):
            came(u32(vcpu), ipis() + number)


def take_job(vcpu: u32) -> u64:
    """Take as many as vCPU 0 sends."""
    while apic.came_to(vcpu) < 2 * ipis() and came(vcpu, apic.came_to(vcpu)):
        intrinsics.compiler_barrier()
    return 0


def came(vcpu: u32, before: u64) -> bool:
    """Whether another interrupt comes to a vCPU after the `before` that had; others run meanwhile."""
    since = clock.now_ns()
    while apic.came_to(vcpu) <= before:
        if clock.now_ns() - since > PATIENCE_NS:
            return False
        hypercall.yield_cpu()
    return True
