"""The other CPUs: found in the MADT, started one after the other by INIT and startup interrupts.

Intel SDM vol. 3A 9.4 "Multiple-Processor (MP) Initialization", AMD APM vol. 2 16.7. A CPU begins in real mode, in a copy of
boot.S's trampoline, and arrives in `arrive` on its own stack; the boot CPU waits for each before it starts the next.
"""
from enum import IntEnum
from typing import Final

from hypervisor import boot_info, clock, lock, phase, run_loop, timers
from hypervisor.arch_x86 import acpi, backend, idt, lapic, memory_types, paging, self_test, stacks, tsc, tsc_warp
from hypervisor.arch_x86.intrinsics import copy_memory, halt_forever, pause, store_u32
from hypervisor.build_options import DEBUG
from hypervisor.cpu import cpus, online, this_cpu
from hypervisor.lang import char_at, link_address, struct, u32, u64
from hypervisor.model import MAX_CPUS, Cpu
from hypervisor.sched.cpus import host
from hypervisor.status import Status

TRAMPOLINE: Final = 0x8000  # page-aligned, below 1 MiB; nothing else of ours lies there
STACK_SLOT_BYTES: Final = 4  # the end of the trampoline: where the stack's top is given
INIT_NS: Final[u64] = 10_000_000  # from INIT to the first startup interrupt, as in the manual's example
STARTUP_NS: Final[u64] = 200_000  # from the first to the second
ANSWER_NS: Final[u64] = 1_000_000_000


class Stage(IntEnum):
    """How far the CPU that is being started has come."""

    CALLED = 0
    ARRIVED = 1  # it runs Python
    READY = 2  # guests may run there
    FAILED = 3  # its virtualization cannot be switched on


@struct
class Start:
    """What the boot CPU and the one that it starts tell each other, and what became of all."""

    stage: Stage
    listed: u32  # CPUs that the MADT offers, the boot CPU included
    silent: u32  # of these, how many do not run,
    silent_id: u32  # and the APIC ID of the first
    warp: u64  # ticks by which one TSC was seen behind another


start: Final = Start()


def start_all() -> None:
    """Start every CPU there is room for. They wait for the lock, which the boot CPU takes here."""
    lock.acquire()
    place = acpi.next_cpu(0)
    usable = boot_info.is_usable(TRAMPOLINE, TRAMPOLINE + 4096)
    while place != 0:
        apic_id = acpi.cpu_apic_id(place)
        if apic_id != cpus[0].apic_id:
            start.listed += 1
            if not usable or online.count == MAX_CPUS or not _start_one(cpus[online.count], apic_id):
                if start.silent == 0:
                    start.silent_id = apic_id
                start.silent += 1
        place = acpi.next_cpu(place)
    host.count = online.count
    _tell()


def _tell() -> None:
    """One line, and one more if a CPU does not run."""
    agree = "" if online.count == 1 else ", their TSCs agree"
    if start.warp != 0:
        phase.found("cpus", f"{online.count} of {start.listed + 1} run, a TSC is {start.warp} ticks behind another: guests may see time step back")
    else:
        phase.found("cpus", f"{online.count} of {start.listed + 1} run{agree}")
    if start.silent != 0:
        why = "no room for more" if online.count == MAX_CPUS else "no answer"
        phase.found("cpus", f"{start.silent} left out ({why}), the first has APIC ID {start.silent_id}")


def _start_one(cpu: Cpu, apic_id: u32) -> bool:
    """Bring one CPU up as `cpu`; False: it does not answer in time, or is of no use."""
    if not lapic.can_reach(apic_id):
        return False
    begin = link_address("trampoline")
    length = link_address("trampoline_end") - begin
    copy_memory(TRAMPOLINE, begin, length)
    store_u32(TRAMPOLINE + length - STACK_SLOT_BYTES, u32(stacks.top(cpu.id, 0)))
    start.stage = Stage.CALLED
    tsc_warp.prepare()
    lapic.send_init(apic_id)
    _wait(INIT_NS)
    lapic.send_startup(apic_id, TRAMPOLINE >> 12)
    _wait_for(Stage.ARRIVED, STARTUP_NS)
    if start.stage == Stage.CALLED:
        lapic.send_startup(apic_id, TRAMPOLINE >> 12)
        _wait_for(Stage.ARRIVED, ANSWER_NS)
    if start.stage == Stage.CALLED:
        lapic.send_init(apic_id)  # so that it does not come later, on a stack that is another's by then
        return False
    start.warp = max(start.warp, tsc_warp.compare())
    while start.stage == Stage.ARRIVED:
        pause()
    if start.stage == Stage.READY:
        online.count += 1
    return start.stage == Stage.READY


def _wait(ns: u64) -> None:
    """Busily."""
    begun: u64 = clock.now()
    while clock.now() - begun < clock.ticks_of(ns):
        pause()


def _wait_for(stage: Stage, ns: u64) -> None:
    """Until the CPU has come so far, but not longer than this."""
    begun: u64 = clock.now()
    while start.stage < stage and clock.now() - begun < clock.ticks_of(ns):
        pause()


def arrive() -> None:
    """Called by boot.S on each further CPU, in long mode on the early page tables, interrupts off. Does not return."""
    cpu = this_cpu()
    idt.load(cpu.id)  # while its GDT can be written
    paging.load()
    memory_types.init()
    lapic.init()
    cpu.apic_id = lapic.apic_id()
    start.stage = Stage.ARRIVED
    tsc_warp.compare()
    timers.init(cpu)
    lapic.start_timer(tsc.rates.apic_khz)
    if backend.init_cpu(cpu) != Status.OK:
        start.stage = Stage.FAILED
        halt_forever()
    start.stage = Stage.READY
    lock.acquire()
    if DEBUG:
        failure = self_test.first_failure()
        phase.require(char_at(failure, 0) == 0, "self-test", f"on CPU {cpu.id} it does not hold that {failure}")
    run_loop.run(cpu)
