"""Messages between local APICs: who gets an IPI or a device's message, and how a vCPU is started, stopped and woken by one."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor import apic_bus, inject, timers, vm
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.defs.svm import INTERCEPT_CR8_WRITE, INTERCEPT_IRET
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.state import CS, GuestState
from hypervisor.arch_x86.svm import nmi
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.addresses import Hva
from hypervisor.arch_x86.vm_exit import Cause
from hypervisor.devices import lapic
from hypervisor.handlers import hlt
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import address
from hypervisor.model import Vcpu, VcpuState, Vm
from tests.linux.stock import Stock, waiting_vector

COUNT = 4
VALID = 1 << 31


class Siblings:
    """The stock VM with COUNT vCPUs, all but the first parked; VMCBs of their own."""

    def __init__(self, stock: Stock) -> None:
        self.stock = stock
        self.vmcbs = [stock.vmcb]
        self.vcpus = [stock.vcpu]
        for index in range(1, COUNT):
            vcpu, vmcb = Vcpu(), Vmcb()
            vcpu.vm, vcpu.index, vcpu.state = stock.vm, index, VcpuState.PARKED
            vcpu.backend_hva = Hva(address(vmcb))
            vcpu.apic_timer.vcpu = vcpu
            lapic.reset(vcpu.lapic, index, False)
            stock.vm.vcpus[index] = vcpu
            self.vcpus.append(vcpu)
            self.vmcbs.append(vmcb)
        stock.vm.vcpu_count = COUNT
        for vcpu in self.vcpus:  # as Linux has them: enabled, flat logical addresses
            vcpu.lapic.svr = 0x1FF
            vcpu.lapic.ldr = 1 << 24 + vcpu.index

    def requests(self) -> list[int]:
        """The highest vector each has, taken away."""
        vectors = [lapic.request(vcpu.lapic) for vcpu in self.vcpus]
        for vcpu in self.vcpus:
            for word in range(8):
                vcpu.lapic.irr[word] = 0
            vcpu.lapic.requests = 0
        return vectors

    def icr(self, sender: int, low: int, high: int = 0) -> None:
        apic_bus.write_page(self.vcpus[sender], lapic.ICR2, high << 24)
        apic_bus.write_page(self.vcpus[sender], lapic.ICR, low)

    def close(self) -> None:
        for vcpu in self.vcpus:
            timers.cancel(vcpu.apic_timer)
        for index in range(1, COUNT):
            self.stock.vm.vcpus[index] = None
        self.stock.vm.vcpu_count = 1


@pytest.fixture
def siblings(stock: Stock) -> Iterator[Siblings]:
    made = Siblings(stock)
    yield made
    made.close()


@given(st.integers(0, COUNT - 1), st.sampled_from([0, 1, 2, 3]), st.booleans(), st.integers(0, 255), st.integers(16, 255))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_ipi_reaches_those_that_icr_names(siblings: Siblings, sender: int, shorthand: int, logical: bool, to: int, vector: int) -> None:
    siblings.icr(sender, vector | shorthand << 18 | logical << 11, to)
    expected = set(range(COUNT)) if to == 255 else {n for n in range(COUNT) if (to >> n & 1 if logical else n == to)}
    expected = (expected, {sender}, set(range(COUNT)), set(range(COUNT)) - {sender})[shorthand]
    assert siblings.requests() == [vector if n in expected else 0 for n in range(COUNT)]


def test_lowest_priority_goes_to_one_who_is_least_busy_and_takes_turns(siblings: Siblings) -> None:
    siblings.vcpus[0].lapic.tpr = siblings.vcpus[0].lapic.ppr = 0x80
    taken = []
    for _ in range(6):
        assert apic_bus.msi(siblings.stock.vm, 0xFEE00000 | 0xFF << 12 | 4, 0x100 | 0x55)
        vectors = siblings.requests()
        assert sorted(vectors) == [0, 0, 0, 0x55]
        taken.append(vectors.index(0x55))
    assert set(taken) == {1, 2, 3} and taken[:3] == taken[3:]


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 0xFFFFFFFF))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_message_of_a_device_is_survived(siblings: Siblings, place: int, data: int) -> None:
    """Nobody takes what is not sent to FEExxxxx."""
    assert apic_bus.msi(siblings.stock.vm, place, data) is False or place >> 20 == 0xFEE
    siblings.requests()
    apic_bus.msi(siblings.stock.vm, 0xFEE00000 | place & 0xFFFFF, data & 0xF8FF)  # fixed: all who are addressed
    assert all(vector in (0, data & 0xFF) for vector in siblings.requests())


def test_a_vcpu_is_started_in_real_mode(siblings: Siblings) -> None:
    """INIT, then a start-up IPI for page 9A; a second one is dropped."""
    target = siblings.vcpus[2]
    target.on_cpu = True
    siblings.icr(0, 0x4500, 2)
    states = [target.state]
    siblings.icr(0, 0x469A, 2)
    assert [*states, target.state] == [VcpuState.PARKED, VcpuState.RUNNABLE] and target.lapic.init
    machine.cpuid_leaves[(1, 0)] = (0x800F12, 0, 0, 0)
    inject.deliver(target)
    state = GuestState()
    backend.read_state(target, state)
    assert (target.regs.rip, target.regs.rdx, state.cr0, state.efer) == (0, 0x800F12, 0x60000010, 0)
    assert (state.segments[CS].selector, state.segments[CS].base) == (0x9A00, 0x9A000)
    assert not target.lapic.waits_for_startup
    siblings.icr(0, 0x4655, 2)
    assert not target.lapic.startup


def test_an_init_parks_who_runs(siblings: Siblings) -> None:
    target = siblings.vcpus[1]
    target.state, target.on_cpu = VcpuState.RUNNABLE, True
    target.lapic.waits_for_startup = False
    target.exception_pending = True
    siblings.icr(0, 0x4500, 1)
    inject.deliver(target)
    assert target.state == VcpuState.PARKED and not target.exception_pending and target.lapic.waits_for_startup
    assert lapic.is_enabled(target.lapic) is False


def test_an_init_of_the_first_resets_the_vm(siblings: Siblings, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[Vm] = []
    monkeypatch.setattr(vm, "stopped", stopped.append)
    siblings.stock.vm.reboots_most = 1
    siblings.icr(1, 0x4500, 0)
    inject.deliver(siblings.vcpus[0])
    assert len(stopped) == 1 and siblings.stock.vm.reboots == 1


def test_nmis_wait_for_the_iret_of_the_one_before(siblings: Siblings) -> None:
    """The second is held back until RIP is behind the IRET, which is single-stepped for it."""
    vcpu, vmcb = siblings.vcpus[0], siblings.vmcbs[0]
    siblings.icr(1, 0x4400, 0)
    inject.deliver(vcpu)
    assert vmcb.event_injection == VALID | 2 << 8 | 2 and vmcb.intercept_misc1 & INTERCEPT_IRET
    vmcb.event_injection = 0
    siblings.icr(1, 0x4400, 0)
    inject.deliver(vcpu)
    assert vmcb.event_injection == 0 and vcpu.lapic.nmi
    vmcb.rip = vcpu.regs.rip = 0x1000
    nmi.returning(vcpu, vmcb)
    inject.deliver(vcpu)
    assert vmcb.event_injection == 0 and vmcb.rflags & 0x100
    vmcb.rip = vcpu.regs.rip = 0x2000
    vmcb.rflags = 0x202
    assert nmi.stepped(vcpu)
    inject.deliver(vcpu)
    assert vmcb.event_injection == VALID | 2 << 8 | 2 and not vcpu.lapic.nmi


def test_cr8_holds_interrupts_back(siblings: Siblings) -> None:
    """A write to CR8 exits only while something waits for it."""
    vcpu, vmcb = siblings.vcpus[0], siblings.vmcbs[0]
    vcpu.on_cpu, vmcb.rflags = True, 0x202
    vmcb.v_intr = vmcb.v_intr & ~0xFF | 5
    siblings.icr(1, 0x51, 0)
    inject.deliver(vcpu)
    assert waiting_vector(vmcb) is None and vmcb.intercept_cr & INTERCEPT_CR8_WRITE
    assert apic_bus.read_page(vcpu, lapic.TPR) == 0x50
    apic_bus.set_cr8(vcpu, 4)
    inject.deliver(vcpu)
    assert waiting_vector(vmcb) == 0x51 and not vmcb.intercept_cr & INTERCEPT_CR8_WRITE


def test_a_halted_vcpu_with_interrupts_off_hears_only_nmi_and_init(siblings: Siblings) -> None:
    """The VM ends only when nobody is left who could wake it."""
    first, second = siblings.vcpus[:2]
    second.state, second.lapic.waits_for_startup = VcpuState.RUNNABLE, False
    siblings.vmcbs[0].rflags = siblings.vmcbs[1].rflags = 2
    assert hlt.handle(first, first.exit) == Outcome.BLOCK and first.deaf
    first.state = VcpuState.BLOCKED
    siblings.icr(1, 0x41, 0)
    states = [first.state]
    siblings.icr(1, 0x4400, 0)
    assert [*states, first.state] == [VcpuState.BLOCKED, VcpuState.RUNNABLE]
    first.state, first.lapic.nmi = VcpuState.BLOCKED, False
    assert hlt.handle(second, siblings.stock.exit(Cause.HLT)) == Outcome.STOP


def test_the_timer_wakes_its_vcpu(siblings: Siblings) -> None:
    vcpu = siblings.vcpus[3]
    vcpu.state, vcpu.lapic.waits_for_startup, vcpu.on_cpu = VcpuState.BLOCKED, False, True
    machine.tsc_step = 0
    machine.tsc = siblings.stock.vm.started_at = 1000
    apic_bus.write_page(vcpu, lapic.LVT_TIMER, 0x60)
    apic_bus.write_page(vcpu, lapic.TIMER_DIVIDE, 11)
    apic_bus.write_page(vcpu, lapic.TIMER_INITIAL, 500_000)
    assert vcpu.apic_timer.heap_index != 0 and abs(vcpu.apic_timer.deadline - 501_000) <= 2
    machine.tsc = vcpu.apic_timer.deadline
    apic_bus.timer_expired(vcpu)
    assert vcpu.state == VcpuState.RUNNABLE and lapic.request(vcpu.lapic) == 0x60 and vcpu.lapic.timer_interrupts == 1
    assert vcpu.apic_timer.heap_index == 0 or vcpu.apic_timer.deadline > machine.tsc
