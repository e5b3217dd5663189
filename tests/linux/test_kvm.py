"""KVM's steal time, poll control and hypercalls, as a stock guest meets them."""

import pytest

from hypervisor import apic_bus, board, clock, inject, msrs, pv_eoi, steal_time
from hypervisor.arch_x86.vm_exit import Cause
from hypervisor.cpu import cpus
from hypervisor.devices import lapic
from hypervisor.devices.lapic import Lapic
from hypervisor.handlers import hlt, hypercall, rdmsr, wrmsr
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import offsetof, sizeof
from hypervisor.model import WORK_RESCHED, WORK_TLB, Vcpu, VcpuState
from hypervisor.msrs import MsrValue
from hypervisor.sched import yielding
from hypervisor.steal_time import StealTime
from tests.linux.stock import PAGES, Stock

STEAL, POLL = 0x4B564D03, 0x4B564D05
AREA = 0x5FC0
PV_EOI, EOI_WORD = 0x4B564D04, 0x6004
VECTOR = 0x41
KICK_CPU, SEND_IPI, SCHED_YIELD = 5, 10, 11
EPERM, ENOSYS = (1 << 64) - 1, (1 << 64) - 1000


def write(stock: Stock, msr: int, value: int) -> Outcome:
    """WRMSR until it does not wait."""
    regs = stock.vcpu.regs
    while True:
        regs.rcx, regs.rax, regs.rdx = msr, value & 0xFFFFFFFF, value >> 32
        outcome = wrmsr.handle(stock.vcpu, stock.exit(Cause.WRMSR))
        if outcome != Outcome.WAIT:
            return outcome


def field(stock: Stock, name: str, size: int) -> int:
    return stock.number_at(AREA + offsetof(StealTime, name), size)


def call(stock: Stock, number: int, rbx: int = 0, rcx: int = 0) -> int:
    """RAX after a hypercall that lets the guest run on."""
    regs = stock.vcpu.regs
    regs.rax, regs.rbx, regs.rcx = number, rbx, rcx
    assert hypercall.handle(stock.vcpu, stock.exit(Cause.HYPERCALL)) == Outcome.SKIP
    return regs.rax


def test_steal_time_is_told_as_the_structure_says(stock: Stock) -> None:
    assert sizeof(StealTime) == 64
    stock.put(AREA, bytes([0xFF] * 64))
    stock.vcpu.steal_ticks = 5_000_000
    assert write(stock, STEAL, AREA | 1) == Outcome.SKIP
    wanted = clock.ns_of(5_000_000)
    assert (field(stock, "steal", 8), field(stock, "preempted", 1)) == (wanted, 0)
    version = field(stock, "version", 4)
    steal_time.left(stock.vcpu)
    assert (field(stock, "preempted", 1), field(stock, "version", 4)) == (1, version)
    stock.vcpu.steal_ticks *= 2
    steal_time.entered(stock.vcpu)
    assert (field(stock, "steal", 8), field(stock, "preempted", 1)) == (2 * wanted, 0)
    assert version % 2 == 0 and field(stock, "version", 4) == version + 2
    found = MsrValue()
    assert msrs.read(stock.vcpu, STEAL, found) and found.value == AREA | 1


def test_steal_time_that_was_switched_off_is_told_no_more(stock: Stock) -> None:
    assert write(stock, STEAL, AREA | 1) == Outcome.SKIP and write(stock, STEAL, 0) == Outcome.SKIP
    stock.put(AREA, bytes(64))
    stock.vcpu.steal_ticks = 1 << 40
    steal_time.left(stock.vcpu)
    steal_time.entered(stock.vcpu)
    assert stock.bytes_at(AREA, 64) == bytes(64)


@pytest.mark.parametrize("told", [1, 3])
def test_a_preempted_vcpu_drops_translations_when_asked(stock: Stock, told: int) -> None:
    assert write(stock, STEAL, AREA | 1) == Outcome.SKIP
    steal_time.left(stock.vcpu)
    stock.put(AREA + offsetof(StealTime, "preempted"), bytes([told]))
    cpus[0].work = 0
    steal_time.entered(stock.vcpu)
    assert bool(cpus[0].work & WORK_TLB) == (told == 3)
    assert field(stock, "preempted", 1) == 0


def enabled(stock: Stock) -> Lapic:
    """The local APIC, switched on, with PV EOI; nothing in service."""
    lapic.reset(stock.vcpu.lapic, 0, True)
    stock.put(EOI_WORD, bytes(4))
    assert write(stock, PV_EOI, EOI_WORD | 1) == Outcome.SKIP
    return stock.vcpu.lapic


def test_an_interrupt_with_nothing_behind_it_needs_no_eoi(stock: Stock) -> None:
    apic = enabled(stock)
    lapic.accept(apic, VECTOR, False)
    assert board.take_interrupt(stock.vcpu) == VECTOR and stock.number_at(EOI_WORD, 4) == 1
    stock.put(EOI_WORD, bytes(4))  # the guest's way to say EOI
    pv_eoi.sync(stock.vcpu)
    assert apic.in_service == lapic.NO_VECTOR and not stock.vcpu.kept.pv_eoi_offered


def test_the_offer_is_taken_back_when_another_interrupt_comes(stock: Stock) -> None:
    """Else the guest's EOI would not be seen, and the one of lower priority would wait."""
    apic = enabled(stock)
    lapic.accept(apic, VECTOR, False)
    board.take_interrupt(stock.vcpu)
    lapic.accept(apic, VECTOR - 0x10, False)
    inject.deliver(stock.vcpu)
    assert stock.number_at(EOI_WORD, 4) == 0 and apic.in_service == VECTOR
    apic_bus.write_page(stock.vcpu, lapic.EOI, 0)
    assert board.take_interrupt(stock.vcpu) == VECTOR - 0x10 and stock.number_at(EOI_WORD, 4) == 1
    apic_bus.write_page(stock.vcpu, lapic.EOI, 0)  # a guest that ignores the bit
    assert stock.number_at(EOI_WORD, 4) == 0 and apic.in_service == lapic.NO_VECTOR


@pytest.mark.parametrize(("level", "behind"), [(True, False), (False, True)])
def test_no_offer_where_the_eoi_is_waited_for(stock: Stock, level: bool, behind: bool) -> None:
    apic = enabled(stock)
    lapic.accept(apic, VECTOR, level)
    if behind:
        lapic.accept(apic, VECTOR - 0x10, False)
    assert board.take_interrupt(stock.vcpu) == VECTOR and stock.number_at(EOI_WORD, 4) == 0


def test_ipis_by_a_call(stock: Stock) -> None:
    """The VM has one vCPU: bits of others are not counted; logical mode, shorthands and odd modes are refused."""
    apic = enabled(stock)
    regs = stock.vcpu.regs
    for rdx, bits, taken in ((0, 0b1, 1), (0, 0b110, 0), (1, 0b1, 0), (0xFFFF_FFFF, 0b10, 0)):
        regs.rsi, regs.rdx = VECTOR, rdx
        assert call(stock, SEND_IPI, rbx=bits) == taken
    assert lapic.request(apic) == VECTOR
    for icr in (VECTOR | 1 << 11, VECTOR | 1 << 18, VECTOR | 5 << 8):
        regs.rsi, regs.rdx = icr, 0
        assert call(stock, SEND_IPI, rbx=1) == (1 << 64) - 22
    regs.rsi, regs.rdx = 4 << 8, 0
    assert call(stock, SEND_IPI, rbx=1) == 1 and apic.nmi


@pytest.mark.parametrize(("msr", "value"), [
    (PV_EOI, EOI_WORD | 3), (PV_EOI, PAGES * 4096 | 1),
    (STEAL, AREA | 3), (STEAL, AREA | 0x21), (STEAL, PAGES * 4096 | 1), (STEAL, (1 << 63) | 1), (POLL, 2), (POLL, 1 << 32)])
def test_what_these_registers_do_not_take(stock: Stock, msr: int, value: int) -> None:
    assert write(stock, msr, value) == Outcome.RESUME and stock.took_general_protection()
    assert stock.vcpu.kept.steal_msr == stock.vcpu.kept.pv_eoi_msr == 0


def test_poll_control_is_one_at_first(stock: Stock) -> None:
    for value in (1, 0, 1):
        stock.vcpu.regs.rcx = POLL
        assert rdmsr.handle(stock.vcpu, stock.exit(Cause.RDMSR)) == Outcome.SKIP
        assert stock.vcpu.regs.rax == value
        assert write(stock, POLL, value ^ 1) == Outcome.SKIP


def test_calls_that_are_not_there(stock: Stock) -> None:
    assert call(stock, 0) == call(stock, 99) == call(stock, 0x4B00_0000 + 99) == ENOSYS
    stock.vmcb.cpl = 3
    assert call(stock, KICK_CPU) == call(stock, 99) == EPERM


def test_a_kick_ends_a_halt_or_the_next_one(stock: Stock) -> None:
    stock.vcpu.state = VcpuState.BLOCKED
    assert call(stock, KICK_CPU, rcx=0) == 0
    assert not stock.vcpu.kept.kicked and stock.vcpu.state == int(VcpuState.RUNNABLE)
    assert call(stock, KICK_CPU, rcx=0) == 0 and stock.vcpu.kept.kicked
    stock.vmcb.rflags = 2
    assert hlt.handle(stock.vcpu, stock.exit(Cause.HLT)) == Outcome.SKIP
    assert not stock.vcpu.kept.kicked
    assert call(stock, KICK_CPU, rcx=1) == call(stock, KICK_CPU, rcx=1 << 63) == 0


def test_yielding_asks_the_policy(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    answers = [True, False]

    def yield_to(vcpu: Vcpu, wanted: Vcpu) -> bool:
        asked.append(wanted.index)
        return answers.pop()

    monkeypatch.setattr(yielding, "yield_to", yield_to)
    cpus[0].work = 0
    for expected in (False, True):
        assert call(stock, SCHED_YIELD, rbx=0) == call(stock, SCHED_YIELD, rbx=7) == 0
        assert bool(cpus[0].work & WORK_RESCHED) == expected
    assert asked == [0, 0]
