"""The objects of the hypervisor: Cpu, Vm, Vcpu, Timer. Fields only; who changes them is said at each. All under lock.py's lock."""
from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hypervisor.addresses import Gpa, Hpa, Hva
from hypervisor.arch_x86.state import Registers
from hypervisor.arch_x86.vm_exit import EXIT_CAUSES, VmExit
from hypervisor.devices.lapic import Lapic
from hypervisor.devices.platform import Platform
from hypervisor.lang import i64, struct, u8, u32, u64
from hypervisor.mmio_instruction import KNOWN, KnownInstruction
from hypervisor.virtio.state import Devices

MAX_CPUS: Final = 8
MAX_VMS: Final = 1024
MAX_VCPUS_PER_VM: Final = 64
NAME_BYTES: Final = 32
MAX_TIMERS: Final = 4608  # armed at one CPU: three of each vCPU, one of each VM, and the machine's own
CONSOLE_LINE_BYTES: Final = 160
CONSOLE_INPUT_BYTES: Final = 256
CONSOLE_OUTPUT_BYTES: Final = 1024  # power of two

# Cpu.work: what is owed before the next VM entry, lowest bit first.
WORK_INTERRUPT: Final = 1  # run expired timers
WORK_RESCHED: Final = 2  # ask the policy again
WORK_TLB: Final = 4  # flush this CPU's guest translations of the current VM
WORK_FPU: Final = 8  # load the current vCPU's FPU, XCR0 and switched MSRs
WORK_INJECT: Final = 16  # an event may have become deliverable
WORK_CONSOLE: Final = 32  # the operator has typed: operator.poll
WORK_DISK: Final = 64  # requests were submitted, or transfers have ended: block/scheduler.turn
WORK_CHANNEL: Final = 128  # the host has sent frames, or there is something to be sent: channel/link.poll
WORK_CRASH: Final = 256  # debug images: the operator wants a fault of ours here
WORK_LOOK: Final = 512  # vCPUs that a broadcast has reached are to be told: apic_bus.look_some
WORK_FRAMES: Final = 1024  # VMs are to be asked for frames, or vCPUs that wait for one woken: pressure.go_on
WORK_REAP: Final = 2048  # a VM has ended: give back what it holds, a piece at a time; last, for it may wait for a disk
WORK_OF_VCPU: Final = WORK_TLB | WORK_FPU | WORK_INJECT  # falls away when none is current
WORK_NAMES: Final[Annotated[list[str], 12]] = [
    "timers", "reschedule", "tlb flush", "fpu", "inject", "operator", "disk", "channel", "crash", "look", "frames", "reap"]  # by bit


class VcpuState(IntEnum):
    """Who may run."""

    RUNNABLE = 0
    BLOCKED = 1  # in BLOCK or HLT, until an event
    WAITING = 2  # in a handler that got WAIT; the exit is run again when woken
    STOPPED = 3
    PARKED = 4  # waits for a start-up IPI: it has never run, or has taken an INIT


class VmState(IntEnum):
    """Life of a VM."""

    FREE = 0
    RUNNING = 1
    PAUSED = 2  # by the operator (Vm.paused_at is set), or made and not started yet
    ENDED = 3  # powered off by itself
    CRASHED = 4  # stopped by the hypervisor, or by its own CRASH call
    REBOOTING = 5  # has reset itself: once its memory has been given back it is started again


class TimerKind(IntEnum):
    """What an expired timer does; timers.expire switches on it."""

    SLICE = 0
    GUEST = 1  # PV timer of a vCPU
    PLATFORM = 2  # device timers of a VM (8254, RTC, LAPIC)
    CONSOLE = 3
    FRAME_WAIT = 4  # a vCPU that waits for a frame is woken, to fail (paging/pressure.py)
    REAP = 5  # the next piece of what an ended VM leaves behind (run_loop.reap)
    DISK = 6  # a limit of a virtual disk lets go, or transfers are looked at (block/scheduler.py)
    APIC = 7  # timer of a vCPU's local APIC
    CAP = 8  # a VM may use what its cap gives it in the next period (sched/wake.py)


@struct
class Timer:
    """A one-shot timer; belongs to at most one CPU's heap. Owner arms and cancels through hypervisor.timers."""

    deadline: u64  # host TSC
    cpu: Cpu | None  # armed: in whose heap
    expired_at: u64  # host TSC at which it last expired (timers.arm_for_guest)
    heap_index: u32  # 1-based place in the heap, 0: not armed
    kind: TimerKind
    vcpu: Vcpu | None


@struct
class Share:
    """A competitor for CPU time, a VM or a vCPU, in the tree of its level (sched/fair_tree.py). sched/eevdf.py owns it."""

    weight: u64  # as counted in the tree: in 1/1024, and as far as the CPUs can serve it (sched/eevdf.py)
    priority: u32  # in the treap
    queued: bool  # it is in the treap; one that competes and is not, runs
    cpus: u32  # one bit for each host CPU that it may run on
    reach: u32  # those that anyone of its subtree may run on
    competitor_index: u32  # at the upper level: its place in eevdf's list of those that compete
    virtual_time: u64  # service received / weight, wraps
    deadline: u64  # virtual time at which its request is to be fulfilled
    earliest: u64  # least deadline of its subtree
    by_cpu: Annotated[list[u64], MAX_CPUS]  # the same of those that may run there, if FairTree.bound
    left: Share | None
    right: Share | None
    parent: Share | None
    vm: Vm | None
    vcpu: Vcpu | None  # None: a VM's


@struct
class FairTree:
    """Competitors of one level by virtual time; their weighted average is average + (rest - debt) / weight, and rest < weight."""

    root: Share | None
    bound: bool  # not all may run on all host CPUs
    weight: u64  # of all that compete, running ones included
    average: u64  # the level's virtual time: never goes back while anyone competes
    rest: u64
    debt: u64  # of those that left: service for which the average stands still (sched/eevdf.py)


@struct
class Cap:
    """What a VM may use at most (sched/cap.py)."""

    percent: u32  # of a CPU; 0: no cap
    period: u64  # TSC ticks
    left: i64  # TSC ticks that it may still use in this period; below 0: used in advance
    refill_at: u64  # host TSC at which the next period begins
    timer: Timer


@struct
class KeptState:
    """What MSRs of a stock guest's vCPU have set that stands neither in the CPU nor in a device. Plain, and saved."""

    steal_msr: u64  # steal_time.py
    pv_eoi_msr: u64  # pv_eoi.py
    pv_eoi_offered: bool  # the guest may have cleared the bit there in place of its EOI
    poll_control: u64  # the inverse of the MSR, which is 1 at first (msrs.py)
    kicked: bool  # hypercalls/kvm.py: its next HLT does not sleep
    misc_msr: Annotated[list[u64], 8]  # msrs.py says which
    mtrr: Annotated[list[u64], 28]  # mtrr.py says which


@struct
class Vcpu:
    """One virtual CPU. Lives in frames of its own (zeroed at creation); page-aligned."""

    regs: Registers
    vm: Vm | None
    index: u32  # within its VM
    state: VcpuState
    backend_hva: Hva  # VMCB (SVM) or VMCS (VT-x) page
    backend_hpa: Hpa
    fpu_hva: Hva  # XSAVE area, 64-byte aligned
    # events
    pending_events: u64  # EVENT_* not yet shown to the guest
    info_gpa: Gpa  # VcpuInfo; 0: none registered
    event_vector: u32
    info_valid: bool
    exception_pending: bool  # exception_vector / _error wait for injection
    exception_has_error: bool
    exception_vector: u32
    exception_error: u32
    reinject: u32  # event to inject again after an exit during its delivery (IDT-vectoring format), 0: none
    reinject_error: u32
    event_interrupt: bool  # pending_events has been shown in VcpuInfo; event_vector waits for injection
    on_cpu: bool  # it is the vCPU whose state is loaded (Cpu.vcpu)
    cpu: Cpu | None  # where it runs, or ran last
    restart: bool  # the last exit is handled, again or for the first time, in place of the next entry: WAIT, or its VM was stopped meanwhile
    # switched state
    xcr0: u64
    dr: Annotated[list[u64], 4]
    dr6: u64
    tsc_aux: u64
    star: u64
    lstar: u64
    cstar: u64
    sfmask: u64
    kernel_gs_base: u64
    # scheduling: policies own these
    weight: u32
    competing: bool  # sched/policy.py: the policy in force counts it, it waits or runs
    waiting: bool
    running: bool
    host_cpu: u32  # policy.py: it runs on, or ran on last
    cpus: u32  # the one bit of the host CPU that it is pinned to (sched/limits.py); 0: it may run where its VM may
    traced: u32  # sched/trace.py: the latest trace that tells of it
    picked_at: u64  # host TSC
    parked: bool  # runnable, but its VM has used up its cap (sched/cap.py)
    waiting_since: u64  # host TSC; 0: it does not wait for a CPU
    woken_at: u64  # host TSC at which it was woken, until it runs; 0: it has run
    wakes: u64  # that have led to a run
    wake_ticks: u64  # TSC ticks from being woken to running, of all of them
    steal_ticks: u64  # TSC ticks that it could have run and waited for a CPU, or was kept from it by its VM's cap, until it ran last
    share: Share  # eevdf
    stride_pass: u64  # stride: its pass; while it sleeps, the distance from the global one
    virtual_time: u64  # bvt
    ticket: u64  # its place in the line: round robin, credit
    slice_used: u64  # TSC ticks: round robin, bvt, credit
    credits: i64  # credit
    boosted: bool  # bvt, credit
    moving: Vcpu | None  # next in the list of those that change the policy
    run_queue_index: u32
    cpu_time: u64  # TSC ticks charged
    unbilled: u64  # TSC ticks that served it and will be charged with the next (sched/account.py)
    entered_at: u64
    timer: Timer
    timer_held: bool  # its VM is paused, and the timer was armed
    tsc_offset: u64  # as the hardware was last told (Vm.tsc_offset)
    frame_wait_until: u64  # host TSC at which waiting for a frame fails (paging/pressure.py); 0: not waiting
    frame_wait_timer: Timer
    apic_timer: Timer
    deaf: bool  # has halted with interrupts off: only NMI and INIT wake it
    nmi_masked: bool  # SVM: in an NMI handler
    nmi_returns: bool  # SVM: the IRET at nmi_return_rip ends it
    nmi_steps: bool  # SVM: that IRET is single-stepped, because another NMI waits
    nmi_return_rip: u64
    tpr_watched: u32  # priority class below which CR8 must fall for an exit, 0: none
    console_wait_until: u64  # host TSC at which waiting for room in the console's output ends (channel/consoles.py); 0: not waiting
    launched: bool  # VT-x: the VMCS has been launched, so VMRESUME is due
    # TLB
    asid: u32
    asid_generation: u64
    seen_epoch: u64
    # statistics
    exits: Annotated[list[u64], EXIT_CAUSES]
    exit: VmExit  # the latest
    kept: KeptState
    lapic: Lapic
    known_instructions: Annotated[list[KnownInstruction], KNOWN]  # mmio_known.py
    known_next: u32  # place of the next one


@struct
class ConsoleBuffer:
    """Guest console: output gathered into lines for the operator's console, and input not yet read."""

    line: Annotated[list[u8], CONSOLE_LINE_BYTES]
    line_length: u32
    lines_lost: u32  # since the last line shown: the operator's console was full
    input: Annotated[list[u8], CONSOLE_INPUT_BYTES]
    input_head: u32
    input_tail: u32
    # the channel (channel/consoles.py)
    opened: bool  # the host takes the output; else the latest of it is kept
    output_head: u32  # counts bytes without end (mod 2^32)
    output_tail: u32
    output_lost: u64  # bytes that the host did not take in time
    credit: u32  # bytes that the host lets us send
    from_host: u32  # bytes of input that came by the channel and have not been read
    owed: u32  # bytes that the host may send again and has not been told of
    output: Annotated[list[u8], CONSOLE_OUTPUT_BYTES]


@struct
class Vm:
    """One virtual machine. Lives in frames of its own (zeroed at creation)."""

    id: u32  # its place in the table of VMs: another VM has it after this one is destroyed
    generation: u32  # how many had the place before it, modulo 2^16
    destroy: bool  # once what it holds has been given back its place is free
    state: VmState
    name: Annotated[list[u8], NAME_BYTES]
    kind: u32
    weight: u32
    cpus: u32  # one bit for each host CPU that it may run on; 0: all
    pins: Annotated[list[u8], MAX_VCPUS_PER_VM]  # for each vCPU, host CPU + 1 that it is pinned to; 0: none
    traced: u32  # sched/trace.py: the latest trace that tells of it
    reserved: u32  # percent of a CPU that it is to get at least, if it wants it
    cap: Cap
    share: Share  # eevdf: among the VMs
    members: FairTree  # eevdf: its vCPUs
    competitors: u32  # eevdf: how many of them compete
    lone_competitors: u32  # eevdf: how many of these are pinned
    memory_bytes: u64  # guest-physical RAM is [0, memory_bytes), above 3 GiB split at 4 GiB later
    nested_root: Hpa  # EPT or NPT PML4
    nested_frames: u64  # frames of nested tables, charged to this VM
    private_frames: u64  # frames of RAM backed
    overhead_frames: u64  # Vm, Vcpu, VMCB, FPU ...
    epoch: u64  # raised by each unmap; see DESIGN "TLB"
    released_frames: u64  # statistics of memory trading
    populated_frames: u64
    pressure_frames: u64  # asked for and not yet given
    frame_waiters: u32  # vCPUs that wait for a frame
    unused_pages: u64  # pages whose state lets reclaim take their frame (paging/page_state.py)
    volatile_pages: u64
    forgotten_pages: u64  # while the VM starts again: how far their states have been cleared
    reclaim_next: u64  # gfn at which paging/reclaim.py goes on looking
    page_state_hva: Hva  # one byte a guest frame (abi.PageState in bits 0-1, RELEASED bit 7)
    tsc_offset: u64
    started_at: u64  # host TSC at guest time 0: moves on by each pause
    paused_at: u64  # host TSC; 0: not paused
    exit_code: u32
    crashed: Vcpu | None  # what is to be told of it (crash.py); None: nothing more
    dumped: u32  # pieces told
    holes_touched: u64
    refused_msrs: u64  # RDMSR, WRMSR answered by #GP
    post_code: u32  # port 80 of a PV VM (a platform has its own)
    vcpu_count: u32
    lowest_priority_next: u32  # vCPU whose turn it is among equals, for lowest-priority interrupts
    vcpus: Annotated[list[Vcpu | None], MAX_VCPUS_PER_VM]
    attention: u64  # one bit for each vCPU that a message has reached and who has not been told (apic_bus.py)
    looking: bool  # it is in apic_bus.lookers
    looks_next: Vm | None
    past_cpu_time: u64  # of vCPUs that are no more, as Vcpu.cpu_time and Vcpu.exits
    past_exits: Annotated[list[u64], EXIT_CAUSES]
    past_timer_interrupts: u64  # of local APICs, as Lapic.timer_interrupts and bus_interrupts
    past_bus_interrupts: u64
    console: ConsoleBuffer
    platform: Platform | None
    devices: Devices | None  # its PCI bus
    virtio_console: bool  # one is on that
    config_index: u32  # which configuration of the bundle it was made from: it boots from that again
    reboots: u32  # so far
    reboots_most: u32  # abi.VmConfig.reboots
    hasty_reboots: u32  # the latest ones, each within a second of the VM's start


@struct
class TimerHeap:
    """Armed timers of one CPU (timers.py): slots[1] is the earliest; the children of i are 2i and 2i+1. slots[0] is not used."""

    count: u32
    armed: u64  # the deadline the hardware was given, timers.NEVER: none
    slots: Annotated[list[Timer | None], MAX_TIMERS + 1]


@struct
class Cpu:
    """One host CPU."""

    id: u32
    apic_id: u32
    work: u32
    vcpu: Vcpu | None  # whose state is loaded; runs after the next enter
    fpu_owner: Vcpu | None
    slice: Timer
    reap: Timer
    next_asid: u32
    asid_generation: u64
    halted: bool  # in idle's HLT, without the lock
    crash_kind: u32  # WORK_CRASH: which (crash_commands.py)
    vendor_hva: Hva  # host save area / VMXON region
    loaded: Vcpu | None  # VT-x: whose VMCS is the current one here
    msr_owner: Vcpu | None  # VT-x: whose STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE, DR6 and CR2 are in the CPU
    idle_ticks: u64
    overhead_ticks: u64  # TSC ticks that served no vCPU (sched/account.py)
    timers: TimerHeap
