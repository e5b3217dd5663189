"""What `krait bench isolation` lets loose on a guest's neighbours, and the job that a neighbour does meanwhile.

`stress`: `do=` says what, from `at=` ms of guest time on, without end; each uses all the CPU that it gets.
`job`: a fixed job of `loops=` from `at=` on, whose time by the TSC it prints; then it uses the CPU without end.
"""
from typing import Annotated, Final

from guest_pv_drivers import apic, clock, command_line, hypercall, idt, memory, threads, virtio_disk
from guest_pv_drivers.console import say
from hypervisor.abi import Hypercall
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import address, array, struct, u32, u64

POST_PORT: Final = 0x80
IA32_APIC_BASE: Final = 0x1B
TIMER_COUNTS: Final = 1000  # of the bus clock: ns
BATCH: Final = 64  # frames given back by one call
NO_CALL: Final = 77
DISK_SECTORS: Final = 8  # of a request
IN_FLIGHT: Final = 32


@struct
class CpuidResult:
    """EAX, EBX, ECX, EDX."""

    eax: u32
    ebx: u32
    ecx: u32
    edx: u32


result: Final = CpuidResult()


def job() -> u32:
    """Stores and arithmetic in registers: nothing that exits."""
    cell: Annotated[list[u64], 1] = array(u64, 1)
    loops = command_line.number("loops", 1_000_000)
    wait()
    start = intrinsics.rdtsc()
    for number in range(loops):
        intrinsics.store_u64(address(cell), number)
    say(f"job: {intrinsics.rdtsc() - start}")
    while True:
        intrinsics.compiler_barrier()


def stress() -> u32:
    """One of them."""
    wait()
    if command_line.has_value("do", "memory"):
        touch_memory()
    elif command_line.has_value("do", "exits"):
        storm_exits()
    elif command_line.has_value("do", "calls"):
        flood_calls()
    elif command_line.has_value("do", "ipis"):
        storm_ipis()
    elif command_line.has_value("do", "timers"):
        flood_timers()
    elif command_line.has_value("do", "disk"):
        flood_disk()
    return 1


def wait() -> None:
    """Until `at=`."""
    threads.wait(0, command_line.number("at", 0) * clock.NS_PER_MS + 1)


def touch_memory() -> None:
    """Touch all frames, give them back, touch them again: a fault and a zeroed page each time."""
    first = memory.frames.first_usable
    while True:
        for frame in range(first, memory.frames.count):
            intrinsics.store_u64(frame * memory.PAGE_SIZE, frame)
        for frame in range(first, memory.frames.count, BATCH):
            hypercall.release(frame, min(BATCH, memory.frames.count - frame))


def storm_exits() -> None:
    """Instructions that are intercepted."""
    while True:
        intrinsics.cpuid(0, 0, address(result))
        intrinsics.outb(POST_PORT, 0)
        intrinsics.rdmsr(IA32_APIC_BASE)


def flood_calls() -> None:
    """A good call, one that there is not, and one with an argument that is refused."""
    while True:
        hypercall.call0(Hypercall.VERSION)
        hypercall.call(NO_CALL, 0, 0, 0)
        hypercall.call1(Hypercall.WAKE, NO_CALL)


def storm_ipis() -> None:
    """Interrupts to oneself, with a handler and EOI each."""
    apic.enable()
    while True:
        apic.interrupt_self()


def flood_timers() -> None:
    """Both timers of the vCPU, always due at once."""
    apic.enable()
    apic.write(apic.TIMER_DIVIDE, apic.DIVIDE_BY_1)
    apic.write(apic.LVT_TIMER, idt.APIC_VECTOR)
    while True:
        apic.write(apic.TIMER_INITIAL, TIMER_COUNTS)
        clock.set_timer(1)


def flood_disk() -> None:
    """Reads, as many in flight as it can, without ever sleeping."""
    if not virtio_disk.init(0):
        return
    buffer = memory.alloc() * memory.PAGE_SIZE
    turn: u64 = 0
    while True:
        while virtio_disk.disk.in_flight < IN_FLIGHT:
            turn += 1
            virtio_disk.submit(virtio_disk.READ, turn * DISK_SECTORS % virtio_disk.disk.sectors, buffer, u32(memory.PAGE_SIZE))
        virtio_disk.kick()
        slot = virtio_disk.reap()
        while slot != virtio_disk.NO_SLOT:
            slot = virtio_disk.reap()
