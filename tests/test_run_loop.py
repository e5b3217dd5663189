"""The whole hypervisor above the world switch, interpreted: VMs from an ELF file, run by a script in place of the CPU.

The script is called where VMRUN would be: it looks at registers and VMCB as the CPU would, and leaves an exit behind.
"""
import struct
from collections.abc import Callable, Iterator

import pytest

from hypervisor import log, operator_scheduling, run_loop, timers, vm, vm_control
from hypervisor.abi import EXIT_GUEST_FAILED, EXIT_OK, HYPERCALL_BASE, START_INFO_MAGIC, VM_KIND_PV, Hypercall, StartInfo, VmConfig
from hypervisor.addresses import PAGE_SIZE, Gpa, Hva
from hypervisor.arch_x86 import backend, machine_exit, serial
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.defs import msr
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.state import Registers
from hypervisor.arch_x86.svm import init
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.channel.events import handle_of
from hypervisor.cpu import cpus
from hypervisor.lang import at, clear, map_memory, u64, unmap_memory
from hypervisor.loaders import pv_elf
from hypervisor.memory import guest_memory, ledger, nested_walk
from hypervisor.memory.ledger import Kind
from hypervisor.model import WORK_INTERRUPT, WORK_RESCHED, Timer, TimerKind, Vm, VmState
from hypervisor.sched import run_queue, wake
from hypervisor.run_loop import REAP_PERIOD_NS
from hypervisor.status import Status
from tests.memory.world import World

FILE = 0x60_0000_0000
LINES = 0x61_0000_0000
ENTRY = 0x10_0010
VMMCALL, CPUID, HLT, NPF, SHUTDOWN, INTR = 0x81, 0x72, 0x78, 0x400, 0x7F, 0x60
Script = Iterator[None]


class Ended(Exception):
    """The machine was left, with this code."""


def elf(code: bytes = b"krait", bss: int = 0x3000, machine_number: int = 62, at_gpa: int = 0x10_0000) -> bytes:
    """A kernel of one segment."""
    head = struct.pack("<4s12B", b"\x7fELF", 2, 1, 1, *[0] * 9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, machine_number, 1, ENTRY, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 7, 120, at_gpa, at_gpa, len(code), bss, PAGE_SIZE) + code


class Host:
    """A booted hypervisor with VMs whose guests are generators: each `yield` is one exit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(1600)
        self.shown = bytearray()
        self.guests: dict[int, tuple[Vm, Script]] = {}
        for part in (vm.table, init.host, backend.chosen, features, serial.com1):
            clear(part)
        for number in (msr.EFER, msr.VM_HSAVE_PA):
            machine.msrs[number] = 0
        backend.chosen.svm = True
        init.host.asid_count = 4
        assert backend.init_cpu(cpus[0]) == Status.OK
        monkeypatch.setattr(serial, "put", self.shown.append)
        monkeypatch.setattr(machine_exit, "leave", self.leave)
        machine.guest_runs = self.enter
        machine.tsc_step = 1000

    def leave(self, code: int) -> None:
        raise Ended(code)

    def add(self, name: str, script: Callable[["Guest"], Script], weight: int = 100) -> Vm:
        config = VmConfig()
        config.kind, config.weight, config.memory_bytes, config.vcpu_count = VM_KIND_PV, weight, 2 << 20, 1
        for index, char in enumerate(name.encode()):
            config.name[index] = char
        assert vm.create(config) == Status.OK
        made = vm.by_id(vm.table.count - 1)
        assert made is not None
        data = bytearray(elf())
        map_memory(FILE, data)
        assert pv_elf.load(made, config, Hva(FILE), len(data)) == Status.OK
        unmap_memory(FILE)
        vcpu = made.vcpus[0]
        assert vcpu is not None
        self.guests[vcpu.backend_hpa] = (made, script(Guest(made)))
        vm.start(made)
        return made

    def enter(self, registers: int, vmcb: int) -> None:
        next(self.guests[vmcb][1])

    def run(self) -> int:
        vm.table.end_auto = True
        with pytest.raises(Ended) as left:
            run_loop.run(cpus[0])
        return int(left.value.args[0])

    @property
    def text(self) -> str:
        return self.shown.decode()


class Guest:
    """What a script plays with."""

    def __init__(self, of: Vm) -> None:
        vcpu = of.vcpus[0]
        assert vcpu is not None
        self.vm = of
        self.regs: Registers = vcpu.regs
        self.vmcb = at(Vmcb, vcpu.backend_hva)

    def exit(self, code: int, info1: int = 0, info2: int = 0) -> None:
        self.vmcb.exit_code, self.vmcb.exit_info1, self.vmcb.exit_info2 = code, info1, info2

    def call(self, number: int, a: int = 0) -> None:
        self.vmcb.rax, self.regs.rdi = HYPERCALL_BASE + number, a
        self.exit(VMMCALL)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(monkeypatch)
    yield made
    machine.guest_runs = None
    made.world.close()
    for part in (vm.table, init.host, backend.chosen, cpus[0], run_queue.queue, nested_walk.spaces):
        clear(part)


def power_off(guest: Guest, code: int = 0) -> Script:
    guest.call(Hypercall.POWER_OFF, code)
    yield


def test_start_state(host: Host) -> None:
    seen = StartInfo()

    def script(guest: Guest) -> Script:
        assert (guest.vmcb.rip, guest.vmcb.cpl, guest.vmcb.efer) == (ENTRY, 0, 0x1D00)
        place = guest_memory.host_address(guest.vm, Gpa(guest.regs.rdi))
        info = at(StartInfo, place)
        seen.magic, seen.memory_bytes, seen.image_end = info.magic, info.memory_bytes, info.image_end
        tables = guest.vmcb.cr3
        assert guest_memory.read_u64(guest.vm, Gpa(guest_memory.read_u64(guest.vm, Gpa(
            guest_memory.read_u64(guest.vm, Gpa(tables)) & ~0xFFF)) & ~0xFFF)) == 0x83
        assert guest_memory.read_u8(guest.vm, Gpa(0x10_0000)) == ord("k")
        yield from power_off(guest)

    host.add("a", script)
    assert host.run() == EXIT_OK
    assert (seen.magic, seen.memory_bytes, seen.image_end) == (START_INFO_MAGIC, 2 << 20, 0x10_7000)


def test_exits_move_rip_and_registers(host: Host) -> None:
    machine.cpuid_leaves[(0, 0)] = (0x10, 1, 2, 3)

    def script(guest: Guest) -> Script:
        guest.vmcb.rax, guest.regs.rcx = 0, 0
        guest.exit(CPUID)
        yield
        assert (guest.vmcb.rax, guest.regs.rbx, guest.regs.rcx, guest.regs.rdx) == (0xD, 1, 2, 3)
        assert guest.vmcb.rip == ENTRY + 2
        guest.call(Hypercall.VERSION)
        yield
        assert guest.vmcb.rax & 0xFFFFFFFF == 1 and guest.vmcb.rip == ENTRY + 5
        guest.exit(NPF, 6, 0x18_0000)
        yield
        assert guest.vmcb.rip == ENTRY + 5
        assert guest_memory.host_address(guest.vm, Gpa(0x18_0000)) != 0
        yield from power_off(guest, 7)

    host.add("a", script)
    assert host.run() == EXIT_GUEST_FAILED
    assert "result: vm 'a' ended with code 7" in host.text


def test_a_crash_stops_one_vm(host: Host) -> None:
    def bad(guest: Guest) -> Script:
        guest.vmcb.rip, guest.regs.r9 = 0x10_0123, 0xABCD
        guest.exit(SHUTDOWN)
        yield
        raise AssertionError("it ran on")

    def good(guest: Guest) -> Script:
        for _ in range(20):
            guest.exit(INTR)
            yield
        yield from power_off(guest)

    host.add("bad", bad)
    host.add("good", good)
    assert host.run() == EXIT_GUEST_FAILED
    assert "vm 'bad' stopped: triple fault at rip 0x100123" in host.text
    assert "000000000000abcd" in host.text
    assert "result: vm 'bad' crashed" in host.text and "result: vm 'good' ended with code 0" in host.text


def test_unknown_exit_is_dumped(host: Host) -> None:
    def script(guest: Guest) -> Script:
        guest.exit(0x7D, 0x11, 0x22)
        yield

    host.add("a", script)
    assert host.run() == EXIT_GUEST_FAILED
    assert "unknown exit" in host.text and "exit 0x7d info 0x11 0x22" in host.text


def test_all_that_a_vm_held_comes_back(host: Host) -> None:
    free = ledger.book.counts[Kind.FREE]

    def script(guest: Guest) -> Script:
        for page in range(0x120, 0x140):
            guest.exit(NPF, 6, page * PAGE_SIZE)
            yield
        yield from power_off(guest)

    host.add("a", script)
    host.run()
    assert free - ledger.book.counts[Kind.FREE] == vm.VM_PAGES
    assert "ledger: ok" in host.text


def test_others_run_while_a_vm_is_given_back(host: Host) -> None:
    """A piece a millisecond; what it takes is charged to nobody."""
    seen: list[tuple[int, int]] = []  # frames that the ended VM holds, pieces due

    def ends(guest: Guest) -> Script:
        for page in range(0x120, 0x140):
            guest.exit(NPF, 6, page * PAGE_SIZE)
            yield
        yield from power_off(guest)

    def stays(guest: Guest) -> Script:
        while big.nested_root != 0 or big.state == VmState.RUNNING:
            if big.state == VmState.ENDED:
                seen.append((big.nested_frames, cpus[0].reap.heap_index))
            machine.tsc += REAP_PERIOD_NS // 4
            cpus[0].work |= WORK_INTERRUPT
            guest.exit(INTR)
            yield
        yield from power_off(guest)

    big = host.add("big", ends)
    host.add("stays", stays)
    assert host.run() == EXIT_OK
    held = [frames for frames, _ in seen]
    assert held == sorted(held, reverse=True) and len(set(held)) >= 3
    assert all(held.count(frames) >= 3 for frames in set(held)), "between two pieces the other one runs"
    assert all(due != 0 for _, due in seen)
    assert "ledger: ok" in host.text


def test_time_that_others_have_is_steal_time(host: Host) -> None:
    """Two that always want to run: what one has had, the other has lost, but for what nobody has."""
    seen: list[tuple[int, int]] = []

    def spins(guest: Guest) -> Script:
        vcpu = guest.vm.vcpus[0]
        assert vcpu is not None
        while machine.tsc < 50_000_000:
            machine.tsc += 300_000
            cpus[0].work |= WORK_RESCHED
            guest.exit(INTR)
            yield
        seen.append((vcpu.cpu_time, vcpu.steal_ticks))
        yield from power_off(guest)

    host.add("one", spins)
    host.add("two", spins)
    assert host.run() == EXIT_OK
    (one_ran, one_lost), (two_ran, two_lost) = seen
    assert one_lost > 15_000_000 and two_lost > 15_000_000
    assert abs(one_ran - two_lost) < 2_000_000 and abs(two_ran - one_lost) < 2_000_000


def test_interrupted_delivery_is_repeated(host: Host) -> None:
    """A page fault of the guest, whose delivery needed a page that was not there."""
    def script(guest: Guest) -> Script:
        guest.vmcb.exit_int_info = 0x8000_0B0E | (6 << 32)
        guest.exit(NPF, 6, 0x18_0000)
        yield
        assert guest.vmcb.event_injection == 0x8000_0B0E | (6 << 32)
        guest.vmcb.exit_int_info = 0
        yield from power_off(guest)

    host.add("a", script)
    assert host.run() == EXIT_OK


def test_single_step_over_an_emulated_instruction(host: Host) -> None:
    def script(guest: Guest) -> Script:
        guest.vmcb.rflags = 0x102
        guest.exit(CPUID)
        yield
        assert guest.vmcb.event_injection == 0x8000_0301
        yield from power_off(guest)

    host.add("a", script)
    assert host.run() == EXIT_OK


def test_waiting_handlers_run_again(host: Host) -> None:
    """With pins that answer WAIT at random, each call still happens exactly once."""
    guest_memory.start_random_waits(3)

    def script(guest: Guest) -> Script:
        for index in range(64):
            guest_memory.load_image(guest.vm, Gpa(0x18_0000), Hva(LINES + 2 * index), 2)
            guest.regs.rsi = 2
            guest.call(Hypercall.CONSOLE_WRITE, 0x18_0000)
            yield
            assert guest.vmcb.rax == 2
        yield from power_off(guest)

    map_memory(LINES, bytearray(b"".join(bytes([48 + i, 10]) for i in range(64))))
    try:
        host.add("a", script)
        assert host.run() == EXIT_OK
    finally:
        unmap_memory(LINES)
    assert [line[4] for line in host.text.splitlines() if line.startswith("[a] ")] == [chr(48 + i) for i in range(64)]
    assert guest_memory.random_wait.waits > 3


def test_time_stands_still_while_paused(host: Host) -> None:
    """Guest time, the TSC offset and an armed timer move on by the pause, and its vCPU does not run."""
    runs: list[int] = []
    made: list[Vm] = []

    def sleeper(guest: Guest) -> Script:
        guest.call(Hypercall.TIMER_SET, 1_000_000)
        yield
        guest.call(Hypercall.TIME)
        yield
        before = guest.vmcb.rax
        while vm_control.pause(guest.vm) == Status.OK:
            guest.call(Hypercall.BLOCK)
            yield
            runs.append(guest.vmcb.rax)
            guest.call(Hypercall.TIME)
            yield
            runs.append(guest.vmcb.rax - before)
            break
        yield from power_off(guest)

    def other(guest: Guest) -> Script:
        sleeping = made[0]
        for _ in range(4000):
            guest.call(Hypercall.YIELD)
            yield
        assert sleeping.state == VmState.PAUSED and not runs
        offset, lost_from = sleeping.tsc_offset, sleeping.paused_at
        assert vm_control.resume(sleeping) == Status.OK and vm_control.resume(sleeping) == Status.BAD_ARGUMENT
        assert (offset - sleeping.tsc_offset) % (1 << 64) >= 4_000_000 <= sleeping.started_at
        assert sleeping.paused_at == 0 < lost_from
        yield from power_off(guest)

    def timer_interrupt() -> None:
        cpus[0].work |= WORK_INTERRUPT

    machine.on_halt = timer_interrupt
    made.append(host.add("a", sleeper))
    host.add("b", other)
    assert host.run() == EXIT_OK
    assert runs[0] == 0 and 900_000 <= runs[1] < 3_000_000, "the timer came at its guest time"
    kept = ["".join(map(chr, log.get(number).text)) for number in range(log.first_kept(), log.ring.written)]
    assert kept[-2].startswith("vm 'a' paused\0") and kept[-1].startswith("vm 'a' resumed after ")


def test_a_destroyed_vm_leaves_nothing_and_its_handle_is_refused(host: Host) -> None:
    """Its place goes to the next VM, under another handle."""
    free = ledger.book.counts[Kind.FREE]
    seen: list[int] = []

    def script(guest: Guest) -> Script:
        seen.append(handle_of(guest.vm))
        assert vm.by_handle(seen[-1]) is not None
        if len(seen) % 2:
            yield from power_off(guest)
        vm_control.destroy(guest.vm)  # while it runs
        guest.call(Hypercall.YIELD)
        yield
        raise AssertionError("it runs on")

    for _ in range(4):
        host.add("a", script).destroy = True
        assert host.run() == EXIT_OK
        assert vm.table.vms[0] is None and ledger.book.counts[Kind.FREE] + ledger.book.counts[Kind.QUARANTINED] == free
    assert seen == [generation << 16 for generation in range(4)]
    assert all(vm.by_handle(handle) is None for handle in seen)


@pytest.mark.parametrize("data, status", [
    (elf(machine_number=3), Status.BAD_ARGUMENT), (elf()[:100], Status.BAD_ARGUMENT), (elf()[:-1], Status.BAD_ARGUMENT),
    (elf(at_gpa=0x20_0000), Status.BAD_ADDRESS), (elf(bss=1 << 60), Status.BAD_ADDRESS), (elf(bss=2), Status.BAD_ARGUMENT),
    (b"\x7fELF" + bytes(200), Status.BAD_ARGUMENT), (elf(at_gpa=(1 << 64) - 4096), Status.BAD_ADDRESS)])
def test_bad_kernels_are_refused(host: Host, data: bytes, status: Status) -> None:
    made = host.add("a", power_off)
    config = VmConfig()
    map_memory(FILE, bytearray(data))
    try:
        assert pv_elf.load(made, config, Hva(FILE), len(data)) == status
    finally:
        unmap_memory(FILE)


def test_a_breath_comes_between_timers_that_are_due_and_the_hardware_waits_for_the_next(host: Host) -> None:
    cpu = cpus[0]
    due, later = [Timer(), Timer()], Timer()
    for timer in (*due, later):
        timer.kind = TimerKind.GUEST  # of no vCPU: nothing to do
    machine.tsc_step = 1
    timers.arm(cpu, later, machine.tsc + 10_000_000)
    for timer in due:
        timers.arm(cpu, timer, machine.tsc)
    cpu.work = 0
    run_loop.run_timers(cpu)
    assert [timer.heap_index != 0 for timer in due].count(True) == 1 and cpu.work & WORK_INTERRUPT
    cpu.work = 0
    run_loop.run_timers(cpu)
    assert all(timer.heap_index == 0 for timer in due) and cpu.work & WORK_INTERRUPT == 0
    assert cpu.timers.armed == later.deadline
    timers.cancel(later)


def test_a_changed_cap_does_not_wait_for_the_end_of_its_old_period(host: Host) -> None:
    def idle(guest: Guest) -> Script:
        yield

    made = host.add("ada", idle)

    def cap(arguments: bytes) -> None:
        map_memory(LINES, bytearray(arguments + bytes(1)))
        operator_scheduling.cap(u64(LINES))
        unmap_memory(LINES)

    cap(b"ada 50 1000")
    made.cap.left = -1
    wake.await_refill(made)
    old = made.cap.timer.deadline
    assert made.cap.timer.heap_index != 0 and old == made.cap.refill_at
    cap(b"ada 50 10")
    assert made.cap.timer.heap_index == 0
    made.cap.left = -1
    wake.await_refill(made)
    assert made.cap.timer.deadline == made.cap.refill_at < old
    timers.cancel(made.cap.timer)
