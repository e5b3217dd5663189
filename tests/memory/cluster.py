"""Several host CPUs off target: each runs the real run loop in a thread of its own, one at a time, and guests are played by the test.

A CPU that enters a guest or sleeps hands the turn back, outside the hypervisor's lock; a test then lets the guest touch memory
through that CPU's tagged TLB, or ends its run by an exit. Interrupts between CPUs, timers and kicks go through the real local
APIC code; a CPU takes them when the test lets it, so that everything may come late.
"""
from __future__ import annotations

import threading
from typing import Any, Callable

import pytest

from hypervisor import events, lock, operator, run_loop, timers, vm, vm_config, vm_control
from hypervisor.abi import EVENT_WAKE, HYPERCALL_BASE, VM_KIND_PV, Hypercall, VmConfig
from hypervisor.addresses import PAGE_SIZE, Hfn, Hpa, hva_of
from hypervisor.arch_x86 import backend, host_interrupts, lapic, serial
from hypervisor.arch_x86.defs import msr
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.fake.tagged_tlb import NestedPageFault, Space, TaggedTlb, svm_space, vtx_space
from hypervisor.arch_x86.fake.vmx import EXIT_REASON, Vmx
from hypervisor.arch_x86.svm import init as svm_init
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.arch_x86.vtx import controls, current as vtx_current, vmcs
from hypervisor.cpu import cpus, online
from hypervisor.lang import at, clear, map_memory, set_link_address, unmap_memory
from hypervisor.memory import ledger
from hypervisor.memory.ledger import Kind
from hypervisor.model import WORK_CONSOLE, Cpu, Vcpu, VcpuState, Vm, VmState
from hypervisor.sched import policy
from hypervisor.sched.quantum import QUANTUM_NS
from hypervisor.sched.wake import wake
from hypervisor.status import Status
from tests.memory.world import World
from tests.vtx.conftest import CAPABILITIES

GDT_AT = 0x9000
ICR = lapic.IA32_X2APIC_FIRST + lapic.ICR // 16
EOI = lapic.IA32_X2APIC_FIRST + lapic.EOI // 16
NOBODY = 7
"""The number of a CPU that does not run: who settles the ledger as a bystander."""
GUEST, IDLE, STOPPED = "guest", "idle", "stopped"
PAGES = 12
SVM_EXITS = {"interrupt": 0x60, "hypercall": 0x81, "fault": 0x400, "control register": 0x14}
VTX_EXITS = {"interrupt": 1, "hypercall": 18, "fault": 48, "control register": 28}
WAIT_SECONDS = 60.0


class Stale(Exception):
    """A guest reached a frame that is not its own any more, or a frame is kept from others for good."""


class Unwound(Exception):
    """The test is over: a CPU's thread ends."""


class Msrs(dict[int, int]):
    """Model-specific registers; those of the local APIC do what they do."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.cluster = cluster

    def __contains__(self, number: object) -> bool:
        return number in (ICR, EOI) or super().__contains__(number)

    def __setitem__(self, number: int, value: int) -> None:
        here = self.cluster.hosts[machine.cpu] if machine.cpu < len(self.cluster.hosts) else None
        if number == ICR:
            self.cluster.hosts[value >> 32].pending.add(value & 0xFF)
        elif number == EOI:
            assert here is not None
            here.in_service = False
        elif number == lapic.IA32_TSC_DEADLINE and here is not None:
            here.deadline = value
        super().__setitem__(number, value)


class SharedVmx(Vmx):
    """VMX of one of several CPUs: the regions are in the memory they share."""

    def __init__(self, host: HostCpu, regions: dict[int, dict[int, int]]) -> None:
        super().__init__()
        self.host, self.regions = host, regions
        self.tables["gdtr"] = GDT_AT

    def vmptrld(self, vmcs_at: int) -> bool:
        if any(other.vmx.current == vmcs_at for other in self.host.cluster.hosts if other is not self.host):
            raise Stale("a VMCS is loaded that is current on another CPU")
        return super().vmptrld(vmcs_at)

    def invept(self, kind: int, pointer: int) -> None:
        self.host.tlb.invept(kind, pointer)

    def invvpid(self, kind: int, vpid: int) -> None:
        self.host.tlb.invvpid(kind, vpid)

    def enter(self, registers: int, launched: bool) -> int:
        assert launched == (self.current in self.launched)
        self.launched.add(self.current)
        fields = self.fields()
        self.host.space = vtx_space(fields[vmcs.VPID] & 0xFFFF, fields[vmcs.EPT_POINTER])
        self.host.pause(GUEST)
        return fields[EXIT_REASON]


class HostCpu:
    """One CPU: its thread, its TLB, and the interrupts that wait for it."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster, self.number = cluster, number
        self.tlb = TaggedTlb()
        self.vmx = SharedVmx(self, cluster.regions)
        self.pending: set[int] = set()
        self.in_service = False
        self.deadline = 0
        self.state = STOPPED
        self.space = Space(0, 0, 0)
        self.does: Callable[[], None] | None = None
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    @property
    def cpu(self) -> Cpu:
        return cpus[self.number]

    @property
    def vcpu(self) -> Vcpu:
        """Whose guest runs here."""
        running = self.cpu.vcpu
        assert self.state == GUEST and running is not None
        return running

    def _run(self) -> None:
        self._turn.acquire()
        try:
            lock.acquire()
            run_loop.run(self.cpu)
        except BaseException as error:  # it is the test's: `go` raises it there
            self._error = error
        self.state = STOPPED
        self._back.release()

    def pause(self, state: str) -> None:
        """In its thread: the others' turn, until `go`."""
        self.state = state
        self._back.release()
        self._turn.acquire()
        if self.cluster.over:
            raise Unwound

    def go(self) -> None:
        """Let it run until it enters a guest or sleeps."""
        machine.cpu, machine.vmx = self.number, self.vmx
        self._turn.release()
        assert self._back.acquire(timeout=WAIT_SECONDS), f"CPU {self.number} does not come back"
        machine.cpu = NOBODY
        if self._error is not None and not isinstance(self._error, Unwound):
            raise self._error

    def tick(self) -> None:
        """Its timer."""
        if self.deadline != 0 and self.deadline <= machine.tsc:
            self.deadline = 0
            self.pending.add(lapic.TIMER_VECTOR)

    def serve(self) -> None:
        """In its thread, with interrupts let in: take those that wait, while each is ended by an EOI."""
        while self.pending and not self.in_service:
            self.in_service = True
            host_interrupts.handle(self.cpu, self.pending.pop())

    # What a guest's run ends by
    def leave(self, how: str, fields: Callable[[Any], None] | None = None) -> None:
        """One exit, and on to the next entry or sleep."""
        vcpu = self.vcpu
        if backend.chosen.svm:
            vmcb = at(Vmcb, vcpu.backend_hva)
            vmcb.exit_code = SVM_EXITS[how]
            if fields is not None:
                fields(vmcb)
        else:
            region = self.cluster.regions[vcpu.backend_hpa]
            region.update({EXIT_REASON: VTX_EXITS[how], vmcs.EXIT_INSTRUCTION_LENGTH: 3})
            if fields is not None:
                fields(region)
        self.go()

    def interrupt(self) -> bool:
        """Deliver what waits for it; False: nothing does, or it is in the middle of one."""
        self.tick()
        if self.in_service or (not self.pending and self.does is None):
            return False
        if self.state == IDLE:
            self.go()
        elif backend.chosen.svm:
            self.leave("interrupt")
        else:
            self.in_service = True
            vector = self.pending.pop()
            self.leave("interrupt", lambda region: region.update({vmcs.EXIT_INTERRUPTION_INFO: 0x8000_0000 | vector}))
        return True

    def hypercall(self, number: int, a: int = 0, b: int = 0) -> None:
        regs = self.vcpu.regs
        regs.rdi, regs.rsi = a, b
        if backend.chosen.svm:
            self.leave("hypercall", lambda vmcb: setattr(vmcb, "rax", HYPERCALL_BASE + number))
        else:
            regs.rax = HYPERCALL_BASE + number
            self.leave("hypercall")

    def fault(self, gfn: int, write: bool) -> None:
        def fill(place: Any) -> None:
            if backend.chosen.svm:
                place.exit_info1, place.exit_info2 = 4 | (2 if write else 0), gfn * PAGE_SIZE
            else:
                place.update({vmcs.EXIT_QUALIFICATION: 0x182 if write else 0x181, vmcs.GUEST_PHYSICAL_ADDRESS: gfn * PAGE_SIZE})

        self.leave("fault", fill)

    def touch(self, gfn: int, write: bool) -> None:
        """The guest reads or writes a page; Stale if it reaches a frame that it may not reach."""
        vcpu = self.vcpu
        try:
            frame = self.tlb.reach(self.space, gfn, write)
        except NestedPageFault:
            self.fault(gfn, write)
            return
        owner = vcpu.vm
        assert owner is not None
        entry = ledger.entry_of(Hfn(frame))
        own = entry.kind == Kind.PRIVATE and entry.vm == owner.id and entry.value == gfn
        not_yet_told = entry.kind == Kind.QUARANTINED and entry.vm == owner.id and vcpu.seen_epoch < entry.value
        if not own and not not_yet_told:
            raise Stale(f"CPU {self.number}, vm {owner.id} vcpu {vcpu.index}: page {gfn:#x} reaches frame {frame:#x}, which is "
                        f"{ledger.KIND_NAMES[entry.kind]} (vm {entry.vm}, value {entry.value:#x}); epoch seen {vcpu.seen_epoch}")


class Cluster:
    """A machine of several CPUs. Use as a context; `operate` is the operator's hand on some CPU."""

    def __init__(self, patch: pytest.MonkeyPatch, count: int, intel: bool, asids: int = 16, by_asid: bool = True, frames: int = 900) -> None:
        self.over = False
        self.generations = 0
        """At the end: how often each CPU has begun with its ASIDs anew, at least."""
        self.world = World(frames, intel=intel)
        self.regions: dict[int, dict[int, int]] = {}
        self.hosts: list[HostCpu] = []
        self.hosts = [HostCpu(self, number) for number in range(count)]
        for part in (vm.table, backend.chosen, svm_init.host, vtx_current.here, controls.chosen, lapic.lapic, *cpus):
            clear(part)
        machine.msrs = Msrs(self)
        machine.msrs.update({**CAPABILITIES, 0x3A: 5, 0x485: 5, lapic.IA32_TSC_DEADLINE: 0, msr.EFER: 0, msr.VM_HSAVE_PA: 0})
        lapic.lapic.x2apic = lapic.lapic.tsc_deadline = True
        online.count = count
        policy.start(QUANTUM_NS, count)
        backend.chosen.svm = not intel
        svm_init.host.asid_count, svm_init.host.flush_by_asid = asids, by_asid
        table = bytearray(64)
        table[0x18:0x28] = bytes([0x67, 0, 0, 0, 0, 0x89, 0, 0] + [0] * 8)
        map_memory(GDT_AT, table)
        set_link_address("vtx_exited", 0x20_1234)
        machine.guest_runs, machine.on_halt, machine.on_window = self._entered, self._halted, lambda: self.here.serve()
        patch.setattr(operator, "poll", self._operated)
        patch.setattr(serial, "put", lambda byte: None)
        patch.setattr(vm_config, "boot_again", self._boot_again)
        for host in self.hosts:
            machine.cpu, machine.vmx = host.number, host.vmx
            host.cpu.id = host.cpu.apic_id = host.number
            timers.init(host.cpu)
            if intel:
                assert controls.choose_all() == Status.OK
            assert backend.init_cpu(host.cpu) == Status.OK
        lock.release()  # which the fixture of all tests holds
        machine.cpu = NOBODY
        for host in self.hosts:
            host.thread.start()
            host.go()

    @property
    def here(self) -> HostCpu:
        """The CPU whose turn it is."""
        return self.hosts[machine.cpu]

    def close(self) -> None:
        """End the threads, and give the fake machine back."""
        self.over = True
        self.generations = min(host.cpu.asid_generation for host in self.hosts)
        for host in self.hosts:
            if host.thread.is_alive():
                host._turn.release()
                host.thread.join(WAIT_SECONDS)
        machine.guest_runs = machine.on_halt = machine.on_window = None
        unmap_memory(GDT_AT)
        self.world.close()
        for part in (vm.table, backend.chosen, svm_init.host, vtx_current.here, controls.chosen, lapic.lapic, *cpus):
            clear(part)
        machine.cpu, online.count = 0, 1

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    # Hooks of the fake machine, each in a CPU's thread
    def _entered(self, registers: int, guest: int) -> None:
        host, vmcb = self.here, at(Vmcb, hva_of(Hpa(guest)))
        host.space = svm_space(vmcb)
        if host.space.linear >= svm_init.host.asid_count:
            raise Stale(f"ASID {host.space.linear}: the CPU has {svm_init.host.asid_count}")
        host.tlb.control(vmcb)
        host.pause(GUEST)

    def _halted(self) -> None:
        host = self.here
        host.pause(IDLE)
        host.serve()

    def _operated(self, cpu: Cpu) -> None:
        host = self.hosts[cpu.id]
        if host.does is not None:
            does, host.does = host.does, None
            does()

    def _boot_again(self, made: Vm) -> None:
        """Without a bundle: vCPUs as at the first start."""
        assert vm.create_parts(made) == Status.OK
        start(made)

    # What a test does
    def operate(self, host: HostCpu, does: Callable[[], None]) -> None:
        """The operator's command runs on this CPU at once."""
        if host.in_service:
            raise Stale(f"CPU {host.number} takes no interrupt any more")
        host.does = does
        host.cpu.work |= WORK_CONSOLE
        host.pending.add(host_interrupts.SERIAL_VECTOR)
        while host.does is not None:
            assert host.interrupt()

    def make(self, name: str, vcpus: int, pages: int = PAGES, awake: int = 64) -> None:
        """In operate: a VM that runs, so many of its vCPUs awake."""
        config = VmConfig()
        config.kind, config.weight, config.memory_bytes, config.vcpu_count = VM_KIND_PV, 100, pages * PAGE_SIZE, vcpus
        for index, char in enumerate(name.encode()):
            config.name[index] = char
        assert vm.create(config) == Status.OK
        made = vm.table.newest
        assert made is not None
        start(made, awake)

    def pass_time(self, ticks: int) -> None:
        """The TSC moves on."""
        machine.tsc += ticks

    def quiet(self) -> None:
        """Let each CPU take what waits for it, and no exit more; then no unmapped frame may be kept from others. Stale."""
        for _ in range(8):
            if not any([host.interrupt() for host in self.hosts]):
                break
        machine.cpu = NOBODY
        lock.acquire()
        ledger.settle(len(self.world.entries))
        lock.release()
        if ledger.book.counts[Kind.QUARANTINED] != 0:
            raise Stale(f"{ledger.book.counts[Kind.QUARANTINED]} frames stay in quarantine")


def start(made: Vm, awake: int = 64) -> None:
    """The first vCPUs of a new VM run."""
    vm.start(made)
    for index in range(awake):
        member = made.vcpus[index]
        if member is not None and member.state == VcpuState.BLOCKED:
            wake(member)


def running() -> list[Vm]:
    """VMs that run."""
    return [found for found in places() if found.state == VmState.RUNNING]


def places() -> list[Vm]:
    """All VMs that have a place."""
    return [found for found in (vm.table.vms[place] for place in range(vm.table.count)) if found is not None]


def destroy(of: Vm) -> None:
    """In operate."""
    vm_control.destroy(of)


def wake_all() -> None:
    """In operate: whoever sleeps."""
    for found in running():
        for member in found.vcpus:
            if member is not None:
                events.raise_event(member, EVENT_WAKE)
