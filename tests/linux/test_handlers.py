"""Exits of a VM with a platform: ports, strings, MSRs, CPUID, HLT, and interrupts on their way in."""
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor import board, clock, guest_console, inject, msrs, reboot, timers
from hypervisor.abi import REBOOTS_UNLIMITED
from hypervisor.addresses import PAGE_SIZE
from hypervisor.arch_x86.defs.cr import CR0_PE, RFLAGS_IF
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.state import CS, DS, ES, GuestState
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.vm_exit import Cause
from hypervisor.cpu import cpus
from hypervisor.devices import lapic, platform
from hypervisor.handlers import cpuid, hlt, io, rdmsr, triple_fault, wrmsr
from hypervisor.handlers.outcome import Outcome
from hypervisor.memory import guest_memory
from hypervisor.model import WORK_INJECT, VcpuState, VmState
from tests.linux.stock import PAGES, Stock, take_interrupt, waiting_vector

MEMORY = PAGES * PAGE_SIZE
UART = 0x3F8


def access(stock: Stock, port: int, size: int = 1, value: int | None = None) -> Outcome:
    """IN (no value) or OUT."""
    exit = stock.exit(Cause.IO)
    exit.port, exit.size, exit.is_in = port, size, value is None
    if value is not None:
        stock.vcpu.regs.rax = value
    return io.handle(stock.vcpu, exit)


def start_pic(stock: Stock) -> None:
    for port, value in ((0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, 0)):
        assert access(stock, port, value=value) == Outcome.SKIP


@pytest.mark.parametrize(("size", "wanted"), [(1, 0x11223344556677FF), (2, 0x112233445566FFFF), (4, 0x00000000FFFFFFFF)])
def test_in_writes_what_its_size_says(stock: Stock, size: int, wanted: int) -> None:
    stock.vcpu.regs.rax = 0x1122334455667788
    assert access(stock, 0x9999, size) == Outcome.SKIP
    assert stock.vcpu.regs.rax == wanted


def test_console_bytes_become_lines(stock: Stock) -> None:
    for i, byte in enumerate(b"tux"):
        stock.vm.name[i] = byte
    for byte in b"hello\r\n":
        assert access(stock, UART, value=byte) == Outcome.SKIP
    assert b"[tux] hello" in stock.shown


def test_ends(stock: Stock) -> None:
    assert access(stock, 0x604, 2, 0x3400) == Outcome.STOP
    assert (stock.vm.state, stock.vm.exit_code) == (VmState.ENDED, 0)


@pytest.mark.parametrize(("port", "value", "code"), [(0xF4, 9, 9), (0xCF9, 6, reboot.EXIT_CODE_RESET), (0x64, 0xFE, reboot.EXIT_CODE_RESET)])
def test_ends_with_a_code(stock: Stock, port: int, value: int, code: int) -> None:
    """A reset too, of a VM that may not reboot."""
    assert access(stock, port, value=value) == Outcome.STOP
    assert (stock.vm.state, stock.vm.exit_code) == (VmState.ENDED, code)


def test_a_reset_reboots_as_often_as_configured(stock: Stock) -> None:
    stock.vm.reboots_most = 3
    for count in (1, 2, 3):
        assert access(stock, 0xCF9, value=6) == Outcome.STOP
        assert (stock.vm.state, stock.vm.reboots) == (VmState.REBOOTING, count)
    assert access(stock, 0xCF9, value=6) == Outcome.STOP
    assert (stock.vm.state, stock.vm.exit_code) == (VmState.ENDED, reboot.EXIT_CODE_RESET)


def test_one_that_does_nothing_but_reset_is_ended(stock: Stock) -> None:
    """Eight times within a second of its start; a life of a second makes good."""
    stock.vm.reboots_most = REBOOTS_UNLIMITED
    machine.tsc_step = 0
    machine.tsc = stock.vm.started_at = 1000
    for _ in range(reboot.HASTY_MOST):
        access(stock, 0xCF9, value=6)
    machine.tsc += clock.ticks_of(reboot.HASTY_NS)
    for _ in range(2):
        access(stock, 0xCF9, value=6)
    stock.vm.started_at = machine.tsc
    for _ in range(reboot.HASTY_MOST):
        access(stock, 0xCF9, value=6)
        assert stock.vm.state == VmState.REBOOTING
    access(stock, 0xCF9, value=6)
    assert (stock.vm.state, stock.vm.exit_code) == (VmState.ENDED, reboot.EXIT_CODE_RESET)


def test_halt_with_interrupts_off_is_the_end(stock: Stock) -> None:
    stock.vmcb.rflags = RFLAGS_IF
    assert hlt.handle(stock.vcpu, stock.exit(Cause.HLT)) == Outcome.BLOCK
    stock.vmcb.rflags = 0
    assert hlt.handle(stock.vcpu, stock.exit(Cause.HLT)) == Outcome.STOP
    assert stock.vm.state == VmState.ENDED


def test_triple_fault_with_an_idt_is_a_crash(stock: Stock) -> None:
    stock.vmcb.idtr.limit = 0xFFF
    assert triple_fault.handle(stock.vcpu, stock.exit(Cause.TRIPLE_FAULT)) == Outcome.STOP
    assert stock.vm.state == VmState.CRASHED


def test_triple_fault_without_one_is_a_reset(stock: Stock) -> None:
    stock.vmcb.idtr.limit = 0
    assert triple_fault.handle(stock.vcpu, stock.exit(Cause.TRIPLE_FAULT)) == Outcome.STOP
    assert (stock.vm.state, stock.vm.exit_code) == (VmState.ENDED, reboot.EXIT_CODE_RESET)


def test_the_timer_wakes_and_interrupts(stock: Stock) -> None:
    start_pic(stock)
    machine.tsc_step = 0
    machine.tsc = stock.vm.started_at = 1000
    for port, value in ((0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)):
        access(stock, port, value=value)
    timer = stock.vcpu.timer
    assert timer.heap_index != 0 and abs(timer.deadline - (1000 + 999_848)) <= 2
    stock.vcpu.state = VcpuState.BLOCKED
    machine.tsc = timer.deadline
    board.timer_expired(stock.vcpu)
    assert stock.vcpu.state == VcpuState.RUNNABLE
    stock.vmcb.rflags = RFLAGS_IF
    assert inject.interrupt_pending(stock.vcpu)
    inject.deliver(stock.vcpu)
    assert waiting_vector(stock.vmcb) == 0x30
    assert not inject.interrupt_pending(stock.vcpu)


def expiries(stock: Stock, until: int, serve: Callable[[], None]) -> int:
    """How often the host's timer runs out for the VM, whose guest does `serve` each time."""
    count = 0
    while stock.vcpu.timer.heap_index != 0 and stock.vcpu.timer.deadline < until:
        machine.tsc = stock.vcpu.timer.deadline
        assert timers.expire(cpus[0]) is not None
        board.timer_expired(stock.vcpu)
        count += 1
        serve()
    return count


def take_and_end(stock: Stock) -> None:
    """The guest takes its interrupt and ends it at both 8259s."""
    stock.vmcb.rflags = RFLAGS_IF
    take_interrupt(stock.vmcb)
    inject.deliver(stock.vcpu)
    assert waiting_vector(stock.vmcb) is not None
    for port in (0xA0, 0x20):
        access(stock, port, value=0x20)


def start_storm(stock: Stock) -> int:
    """The interval timer at its shortest period, 838 ns; the time then."""
    start_pic(stock)
    machine.tsc_step = 0
    machine.tsc = stock.vm.started_at = 1000
    for port, value in ((0x43, 0x14), (0x40, 1)):
        access(stock, port, value=value)
    return machine.tsc


def test_a_guest_that_does_not_run_has_one_timer_interrupt(stock: Stock) -> None:
    start = start_storm(stock)
    assert expiries(stock, start + 10**9, lambda: None) == 1
    machine.tsc = start + 10**9
    take_and_end(stock)
    assert stock.vcpu.timer.heap_index != 0, "the next is due once the guest has taken it"
    assert stock.vcpu.timer.deadline > machine.tsc


@pytest.mark.parametrize("masked", [False, True])
def test_the_interval_timer_cannot_storm_the_host(stock: Stock, masked: bool) -> None:
    """A guest that serves each tick: one interrupt of the host in 200 us."""
    start = start_storm(stock)
    if masked:
        access(stock, 0x21, value=1)
        assert expiries(stock, start + 10**9, lambda: None) == 1
        access(stock, 0x21, value=0)
        start = machine.tsc
        take_and_end(stock)
    assert 45 <= expiries(stock, start + 10_000_000, lambda: take_and_end(stock)) <= 51


def test_a_pic_that_starts_anew_lets_the_timer_count_again(stock: Stock) -> None:
    """ICW1 forgets the request; edges of the time while it waited are gone too."""
    start = start_storm(stock)
    for port, value in ((0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)):
        access(stock, port, value=value)
    assert expiries(stock, start + 10**9, lambda: None) == 1
    machine.tsc = start + 10**9
    start_pic(stock)
    assert not platform.interrupt_pending(stock.platform)
    timer = stock.vcpu.timer
    assert timer.heap_index != 0 and machine.tsc < timer.deadline <= machine.tsc + 999_849


def test_the_clocks_periodic_interrupt_cannot_storm_the_host(stock: Stock) -> None:
    """8192 Hz: every 122 us, asked for by a guest that serves each."""
    start_pic(stock)
    for port, value in ((0xA0, 0x11), (0xA1, 0x38), (0xA1, 2), (0xA1, 1), (0xA1, 0)):
        access(stock, port, value=value)
    machine.tsc_step = 0
    machine.tsc = stock.vm.started_at = 1000

    def serve() -> None:
        take_and_end(stock)
        access(stock, 0x70, value=0x0C)
        access(stock, 0x71)

    for index, value in ((0x0A, 0x23), (0x0B, 0x42)):
        access(stock, 0x70, value=index)
        access(stock, 0x71, value=value)
    assert 35 <= expiries(stock, 10_000_000, serve) <= 51


def test_an_interrupt_waits_for_the_window(stock: Stock) -> None:
    start_pic(stock)
    stock.vcpu.cpu, stock.vcpu.on_cpu = cpus[0], True
    for port, value in ((UART + 4, 0x0B), (UART + 1, 0x02)):
        access(stock, port, value=value)
    assert cpus[0].work & WORK_INJECT
    stock.vmcb.rflags = 0
    inject.deliver(stock.vcpu)
    assert waiting_vector(stock.vmcb) is None
    assert inject.interrupt_pending(stock.vcpu)
    stock.vmcb.rflags = RFLAGS_IF
    inject.deliver(stock.vcpu)
    assert waiting_vector(stock.vmcb) == 0x34


@given(st.binary(min_size=1, max_size=200))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_typed_bytes_arrive_in_order_however_many(stock: Stock, data: bytes) -> None:
    access(stock, UART + 2, value=0x01)
    for byte in data:
        assert guest_console.type_byte(stock.vm, byte)
    board.advance(stock.vcpu)
    read = bytearray()
    for _ in data:
        access(stock, UART + 5)
        assert stock.vcpu.regs.rax & 1
        access(stock, UART)
        read.append(stock.vcpu.regs.rax & 0xFF)
    assert bytes(read) == data
    access(stock, UART + 5)
    assert not stock.vcpu.regs.rax & 1


def blocked(stock: Stock) -> bool:
    return stock.vcpu.state == VcpuState.BLOCKED


def test_a_key_wakes_a_halted_vcpu_by_its_interrupt_alone(stock: Stock) -> None:
    """A key typed while the receiver's interrupt is off waits in the FIFO; HLT goes on."""
    start_pic(stock)
    stock.vcpu.state = VcpuState.BLOCKED
    assert guest_console.type_byte(stock.vm, 0x41)
    board.typed(stock.vm)
    assert blocked(stock) and stock.vcpu.pending_events == 0
    for port, value in ((UART + 4, 0x08), (UART + 1, 0x01)):
        access(stock, port, value=value)
    board.typed(stock.vm)
    assert not blocked(stock) and board.take_interrupt(stock.vcpu) == 0x34


def real_mode(stock: Stock, code: bytes, rip: int = 0x500) -> None:
    """16-bit code at CS base 0; DS base 20000, ES base 30000."""
    state = GuestState()
    backend.read_state(stock.vcpu, state)
    state.cr0 = 0
    state.segments[CS].attributes = 0x9B
    state.segments[DS].attributes = state.segments[ES].attributes = 0x93
    state.segments[DS].base, state.segments[ES].base = 0x20000, 0x30000
    backend.write_state(stock.vcpu, state)
    stock.vcpu.regs.rip = rip
    stock.put(rip, code)


def string(stock: Stock, port: int, size: int, is_in: bool, rep: bool) -> list[Outcome]:
    """Dispatch until the instruction is done; the outcomes."""
    seen = []
    for _ in range(1000):
        exit = stock.exit(Cause.IO)
        exit.port, exit.size, exit.is_in, exit.is_string, exit.is_rep = port, size, is_in, True, rep
        seen.append(io.handle(stock.vcpu, exit))
        if seen[-1] not in (Outcome.WAIT, Outcome.RESUME):
            return seen
    raise AssertionError("it does not end")


@pytest.mark.parametrize("waits", [0, 12345])
def test_rep_outsb_sends_a_string(stock: Stock, waits: int) -> None:
    """More elements than one dispatch takes, with and without pins that answer WAIT."""
    text = b"x" * 100 + b"\n"
    real_mode(stock, b"\xf3\x6e")
    stock.put(0x20FF0, text)
    guest_memory.random_wait.number = waits
    stock.vcpu.regs.rsi, stock.vcpu.regs.rcx = 0x0FF0, 0xFFFF0000 + len(text)
    outcomes = string(stock, UART, 1, False, True)
    guest_memory.random_wait.number = 0
    assert outcomes[-1] == Outcome.SKIP
    assert (Outcome.WAIT if waits else Outcome.RESUME) in outcomes
    assert b"x" * 100 in stock.shown
    assert stock.vcpu.regs.rsi == 0x0FF0 + len(text) and stock.vcpu.regs.rcx == 0xFFFF0000


def test_insw_downward_across_pages(stock: Stock) -> None:
    real_mode(stock, b"\xf3\x6d")
    stock.vcpu.regs.rdi, stock.vcpu.regs.rcx, stock.vmcb.rflags = 0x1001, 3, 1 << 10
    assert string(stock, 0x9999, 2, True, True)[-1] == Outcome.SKIP
    assert stock.bytes_at(0x30FFB, 10) == b"\0\0" + b"\xff" * 6 + b"\0\0"
    assert stock.vcpu.regs.rdi == 0x0FFB and stock.vcpu.regs.rcx == 0


def test_segment_override_of_outs(stock: Stock) -> None:
    real_mode(stock, b"\x26\x6e")
    stock.put(0x30040, b"E")
    stock.vcpu.regs.rsi = 0x40
    assert string(stock, 0x80, 1, False, False) == [Outcome.SKIP]
    assert stock.platform.debug.post_code == ord("E")


def test_string_through_page_tables_faults_into_the_guest(stock: Stock) -> None:
    """Protected mode with paging and an empty page directory: #PF at the operand's address, nothing moved."""
    real_mode(stock, b"\x6c")
    state = GuestState()
    backend.read_state(stock.vcpu, state)
    state.cr0, state.cr3 = CR0_PE | 1 << 31, 0x40000
    state.segments[CS].attributes = 0xC09B
    state.segments[ES].base = 0
    backend.write_state(stock.vcpu, state)
    stock.put(0x40000, (0x41000 | 7).to_bytes(4, "little"))
    stock.put(0x41000 + 4 * (0x500 >> 12), (0x0 | 7).to_bytes(4, "little"))
    stock.vcpu.regs.rdi = 0x5123
    exit = stock.exit(Cause.IO)
    exit.port, exit.size, exit.is_in, exit.is_string = 0x80, 1, True, True
    assert io.handle(stock.vcpu, exit) == Outcome.RESUME
    assert stock.vcpu.exception_pending and stock.vcpu.exception_vector == 14 and stock.vcpu.exception_error == 2
    assert stock.vmcb.cr2 == 0x5123


def msr(stock: Stock, number: int, value: int | None = None) -> Outcome:
    """RDMSR (no value) or WRMSR, run again while it waits."""
    regs = stock.vcpu.regs
    regs.rcx = number
    while True:
        if value is None:
            outcome = rdmsr.handle(stock.vcpu, stock.exit(Cause.RDMSR))
        else:
            regs.rax, regs.rdx = 0xDEAD00000000 | value & 0xFFFFFFFF, value >> 32
            outcome = wrmsr.handle(stock.vcpu, stock.exit(Cause.WRMSR))
        if outcome != Outcome.WAIT:
            return outcome


def value_of(stock: Stock) -> int:
    return stock.vcpu.regs.rdx << 32 | stock.vcpu.regs.rax


def test_unknown_msrs_raise_general_protection(stock: Stock) -> None:
    for number in (0x48, 0x3B, 0xDA0, 0x480, 0xC0010114, 0x12345678):
        assert msr(stock, number) == Outcome.RESUME and stock.took_general_protection()
        assert msr(stock, number, 0) == Outcome.RESUME and stock.took_general_protection()
    assert stock.vm.refused_msrs == 12


@pytest.mark.parametrize(("number", "good", "bad"), [
    (0x2FF, 0xC06, 0xC02), (0x2FF, 0, 1 << 12), (0x200, 0x80000006, 0x80000002), (0x201, 0xFFF80000800, 0xFFF80000400),
    (0x250, 0x0606060606060606, 0x0706060606060606), (0x26F, 0, 0x02), (0x277, 0x0007040600070406, 0x0207040600070406),
    (0xC0000103, 0x55, 1 << 32), (0x1D9, 0, 1)])
def test_values_are_checked_then_kept(stock: Stock, number: int, good: int, bad: int) -> None:
    assert msr(stock, number, good) == Outcome.SKIP
    assert msr(stock, number) == Outcome.SKIP and value_of(stock) == good
    assert msr(stock, number, bad) == Outcome.RESUME and stock.took_general_protection()
    assert msr(stock, number) == Outcome.SKIP and value_of(stock) == good


def test_memory_is_write_back_at_first(stock: Stock) -> None:
    assert msr(stock, 0x2FF) == Outcome.SKIP and value_of(stock) == 0xC06
    assert msr(stock, 0xFE) == Outcome.SKIP and value_of(stock) & 0xFF == 8


def test_amd_registers(stock: Stock) -> None:
    assert msr(stock, 0xC0010015) == Outcome.SKIP and value_of(stock) & msrs.HWCR_TSC_FREQ_SEL
    assert msr(stock, 0xC001001F, 1 << 46) == Outcome.SKIP
    assert msr(stock, 0xC001001F) == Outcome.SKIP and value_of(stock) == 1 << 46


@pytest.mark.parametrize("waits", [0, 999])
def test_kvm_clock_fills_the_page(stock: Stock, waits: int) -> None:
    """At any 4-byte aligned address, across pages too; 1 GHz: multiplier and shift give nanoseconds."""
    guest_memory.random_wait.number = waits
    assert msr(stock, 0x4B564D01, 0x5FF0 | 1) == Outcome.SKIP
    assert msr(stock, 0x4B564D00, 0x7000) == Outcome.SKIP
    guest_memory.random_wait.number = 0
    info = stock.bytes_at(0x5FF0, 32)
    version, tsc, base = (int.from_bytes(info[a:b], "little") for a, b in ((0, 4), (8, 16), (16, 24)))
    multiplier, shift, flags = int.from_bytes(info[24:28], "little"), int.from_bytes(info[28:29], "little", signed=True), info[29]
    assert (version % 2, tsc, base, flags) == (0, 0, 0, 1)
    ticks = 123_456_789_000
    shifted = ticks << shift if shift >= 0 else ticks >> -shift
    assert abs((shifted * multiplier >> 32) - ticks) < 200
    assert stock.number_at(0x7000, 4) % 2 == 0 and stock.number_at(0x7004, 4) == 946684770  # 1999-12-31T23:59:30
    assert msr(stock, 0x4B564D01) == Outcome.SKIP and value_of(stock) == 0x5FF1


@pytest.mark.parametrize("value", [MEMORY | 1, MEMORY - 16 | 1, (1 << 63) | 1, 0x5002 | 1])
def test_kvm_clock_outside_memory_is_refused(stock: Stock, value: int) -> None:
    assert msr(stock, 0x4B564D01, value) == Outcome.RESUME
    assert stock.took_general_protection()


def test_cpuid_says_kvm_and_hides_what_is_not_there(stock: Stock) -> None:
    machine.cpuid_leaves[(1, 0)] = (0x800F12, 0x00010800, 0xFFFFFFFF, 0xFFFFFFFF)
    regs = stock.vcpu.regs

    def ask(leaf: int) -> tuple[int, int, int, int]:
        regs.rax, regs.rcx = leaf, 0
        assert cpuid.handle(stock.vcpu, stock.exit(Cause.CPUID)) == Outcome.SKIP
        return regs.rax, regs.rbx, regs.rcx, regs.rdx
    top, b, c, d = ask(0x40000000)
    assert top == 0x40000001 and b"".join(part.to_bytes(4, "little") for part in (b, c, d)) == b"KVMKVMKVM\0\0\0"
    assert ask(0x40000001)[0] == 0x0100106B
    stock.vm.vcpu_count = 2
    assert ask(0x40000001)[0] == 0x01003AEB
    stock.vm.vcpu_count = 1
    _, _, c, d = ask(1)
    assert c >> 31 and not any(c >> bit & 1 for bit in (3, 5, 17))
    assert d >> 12 & 1


def test_cpuid_tells_the_topology_and_the_local_apic(stock: Stock) -> None:
    """Of vCPU 2 of 5: APIC, x2APIC and TSC deadline are emulated, so shown whatever the host has; the ID has three bits."""
    machine.cpuid_leaves[(1, 0)] = (0x800F12, 0x00010800, 0, 0)
    machine.cpuid_leaves[(4, 0)] = (0xFFFFC121, 1, 2, 3)
    machine.cpuid_leaves[(0x80000008, 0)] = (0x3028, 1, 2, 3)
    regs = stock.vcpu.regs
    stock.vm.vcpu_count = 5
    stock.vcpu.index = stock.vcpu.lapic.id = 2

    def ask(leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
        regs.rax, regs.rcx = leaf, subleaf
        assert cpuid.handle(stock.vcpu, stock.exit(Cause.CPUID)) == Outcome.SKIP
        return regs.rax, regs.rbx, regs.rcx, regs.rdx
    _, b, c, d = ask(1)
    assert b == 0x02050800 and c >> 21 & 1 and c >> 24 & 1 and d >> 9 & 1 and d >> 28 & 1
    assert [ask(0xB, level) for level in range(3)] == [(0, 1, 0x100, 2), (3, 5, 0x201, 2), (0, 0, 2, 2)]
    assert ask(4)[0] == 7 << 26 | 0x121 and ask(0x80000008)[2] == 3 << 12 | 4
    stock.vcpu.lapic.base = lapic.BASE
    assert not ask(1)[3] >> 9 & 1
    stock.vm.vcpu_count = 1
    stock.vcpu.index = stock.vcpu.lapic.id = 0


def test_strings_to_and_from_holes(stock: Stock) -> None:
    """OUTS from where there is no RAM sends ones, INS to there is dropped."""
    real_mode(stock, b"\x6e")
    state = GuestState()
    backend.read_state(stock.vcpu, state)
    state.segments[DS].base = state.segments[ES].base = MEMORY
    backend.write_state(stock.vcpu, state)
    assert string(stock, 0x80, 1, False, False) == [Outcome.SKIP]
    assert stock.platform.debug.post_code == 0xFF
    stock.put(0x500, b"\x6c")
    holes = stock.vm.holes_touched
    assert string(stock, 0x80, 1, True, False) == [Outcome.SKIP]
    assert stock.vm.holes_touched > holes
