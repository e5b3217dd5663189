"""The other vCPUs: vCPU 0 starts them by WAKE; each sleeps on a stack of its own until vCPU 0 has a job for all, vCPU 0 included.

The lowest word of every stack, which is STACK_BYTES long and aligned to that, is the number of the vCPU it belongs to: 0 on those of
threads, which all run on vCPU 0. Threads, console and memory allocator are vCPU 0's alone; a job uses none of them.
"""
from typing import Annotated, Final

from guest_pv_drivers import events, hypercall, idt, memory, start_info
from guest_pv_drivers.events import MAX_VCPUS
from hypervisor.abi import Hypercall
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import address, link_address, struct, u32, u64

STACK_BYTES: Final = 4096


@struct
class Jobs:
    """What all vCPUs do. vCPU 0 writes number, then round; each vCPU its own places of the arrays."""

    round: u64  # of jobs; 0: none yet
    number: u64  # main.JOBS
    started: bool
    finished: Annotated[list[u64], MAX_VCPUS]  # round of the last job done
    result: Annotated[list[u64], MAX_VCPUS]  # of that job


jobs: Final = Jobs()


def count() -> u32:
    """vCPUs of this VM."""
    return start_info.get().vcpu_count


def of_stack(place: u64) -> u32:
    """The vCPU whose stack this address lies on."""
    return intrinsics.load_u32(place & ~u64(STACK_BYTES - 1))


def start() -> bool:
    """Give the others their stacks and start them, once. False: there is no memory for that."""
    if jobs.started:
        return True
    for vcpu in range(1, count()):
        frame = memory.alloc()
        if frame == 0:
            return False
        stack: u64 = frame * memory.PAGE_SIZE
        intrinsics.store_u64(stack, vcpu)
        intrinsics.store_u64(link_address("vcpu_stacks") + 8 * u64(vcpu), stack + STACK_BYTES)
    jobs.started = True
    wake_others()
    return True


def wake_others() -> None:
    """Raise EVENT_WAKE at each."""
    for vcpu in range(1, count()):
        hypercall.call1(Hypercall.WAKE, vcpu)


def announce(number: u64) -> u64:
    """Let the others do main.JOBS[number]; its round, which vCPU 0 must finish too."""
    jobs.number = number
    intrinsics.atomic_xchg_u64(address(jobs), jobs.round + 1)
    wake_others()
    return jobs.round


def init(vcpu: u32) -> None:
    """On another vCPU than the first, before all else: tables, IDT and events as vCPU 0 has them."""
    memory.use_tables()
    idt.use()
    events.init(vcpu)


def next_job(vcpu: u32) -> u64:
    """On another vCPU than the first: sleep until there is a job that it has not done; its number. Interrupts are taken meanwhile."""
    intrinsics.cli()
    while intrinsics.atomic_load_u64(address(jobs)) == jobs.finished[vcpu]:
        intrinsics.halt_once()
    intrinsics.sti()
    return jobs.number


def finish(vcpu: u32, result: u64) -> None:
    """It has done the job."""
    jobs.result[vcpu] = result
    intrinsics.atomic_xchg_u64(address(jobs.finished) + 8 * u64(vcpu), jobs.round)
    hypercall.call1(Hypercall.WAKE, 0)


def wait_for_all() -> None:
    """On vCPU 0: sleep until everybody has finished the round. Interrupts are taken meanwhile, which BLOCK does not do."""
    flags = intrinsics.interrupts_off()
    for vcpu in range(count()):
        while intrinsics.atomic_load_u64(address(jobs.finished) + 8 * u64(vcpu)) != jobs.round:
            intrinsics.halt_once()
    intrinsics.interrupts_restore(flags)
