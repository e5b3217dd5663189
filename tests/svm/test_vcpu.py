"""Entry and switch: what goes into the VMCB and what comes out, ASIDs, flushes, injection, refused states."""
from collections.abc import Iterator

import pytest

from hypervisor.addresses import Hpa, Hva
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.svm import check, init, inject
from hypervisor.arch_x86.svm import vcpu as svm_vcpu
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.cpu import cpus
from hypervisor.lang import address
from hypervisor.model import Cpu, Vcpu, Vm

FLUSH_ALL, FLUSH_ASID = 1, 3


@pytest.fixture
def cpu() -> Cpu:
    made = Cpu()
    made.asid_generation, made.next_asid = 1, 1
    return made


@pytest.fixture
def others() -> Iterator[list[tuple[Vcpu, Vmcb]]]:
    """Six more vCPUs: more than there are ASIDs."""
    made = []
    for _ in range(6):
        vmcb, vcpu = Vmcb(), Vcpu()
        vcpu.backend_hva = Hva(address(vmcb))
        made.append((vcpu, vmcb))
    yield made


def test_enter(vcpu: Vcpu, vmcb: Vmcb, cpu: Cpu) -> None:
    seen = []

    def guest(registers: int, place: int) -> None:
        seen.append((registers, place, vmcb.rax, vmcb.rip))
        vmcb.rax, vmcb.rip = 77, 0x2000

    machine.guest_runs = guest
    vcpu.regs.rax, vcpu.regs.rip, vcpu.backend_hpa = 5, 0x1000, Hpa(0x9000)
    vmcb.tlb_control, vmcb.event_injection = FLUSH_ALL, 0x8000_0020
    svm_vcpu.enter(cpu, vcpu)
    machine.guest_runs = None
    assert seen == [(address(vcpu.regs), 0x9000, 5, 0x1000)]
    assert (vcpu.regs.rax, vcpu.regs.rip) == (77, 0x2000)
    assert (vmcb.tlb_control, vmcb.event_injection) == (0, 0)


def test_asids(vcpu: Vcpu, cpu: Cpu, others: list[tuple[Vcpu, Vmcb]]) -> None:
    """asid_count is 4, so 1 to 3 are guests'. The fourth vCPU begins a generation; whoever gets an ASID is flushed."""
    vm = Vm()
    asids = []
    for other, vmcb in others:
        svm_vcpu.switch_to(cpu, vm, other)
        asids.append((vmcb.guest_asid, vmcb.tlb_control))
    assert asids == [(asid, FLUSH_ALL) for asid in (1, 2, 3, 1, 2, 3)]
    svm_vcpu.switch_to(cpu, vm, others[3][0])
    assert (others[3][0].asid, cpu.asid_generation) == (1, 2)
    svm_vcpu.switch_to(cpu, vm, others[0][0])
    assert (others[0][0].asid, cpu.asid_generation) == (1, 3)


def test_no_two_share_an_asid(cpu: Cpu, vcpu: Vcpu, others: list[tuple[Vcpu, Vmcb]]) -> None:
    vm = Vm()
    for turn in range(40):
        svm_vcpu.switch_to(cpu, vm, others[turn * 5 % 6][0])
        current = [other.asid for other, _ in others if other.asid_generation == cpu.asid_generation]
        assert len(set(current)) == len(current) and 0 not in current


def test_no_flush_without_need(vcpu: Vcpu, vmcb: Vmcb, cpu: Cpu) -> None:
    svm_vcpu.switch_to(cpu, Vm(), vcpu)
    vmcb.tlb_control = 0
    svm_vcpu.switch_to(cpu, Vm(), vcpu)
    assert vmcb.tlb_control == 0


@pytest.mark.parametrize("by_asid, control", [(False, FLUSH_ALL), (True, FLUSH_ASID)])
def test_flush(vcpu: Vcpu, vmcb: Vmcb, by_asid: bool, control: int) -> None:
    init.host.flush_by_asid = by_asid
    svm_vcpu.flush(vcpu)
    assert vmcb.tlb_control == control


def test_skip(vcpu: Vcpu, vmcb: Vmcb) -> None:
    exit = VmExit()
    exit.length, vcpu.regs.rip, vmcb.interrupt_shadow = 2, (1 << 64) - 1, 1
    svm_vcpu.skip(vcpu, exit)
    assert (vcpu.regs.rip, vmcb.interrupt_shadow) == (1, 0)


@pytest.mark.parametrize("flags, shadow, pending, able", [
    (0x202, 0, 0, True), (0x002, 0, 0, False), (0x202, 1, 0, False), (0x202, 0, 0x8000_0306, False)])
def test_can_inject(vcpu: Vcpu, vmcb: Vmcb, flags: int, shadow: int, pending: int, able: bool) -> None:
    vmcb.rflags, vmcb.interrupt_shadow, vmcb.event_injection = flags, shadow, pending
    assert inject.can_inject(vcpu) == able


def test_window(vcpu: Vcpu, vmcb: Vmcb) -> None:
    vmcb.v_intr, vmcb.intercept_misc1 = (1 << 24) | 7, 3
    inject.request_window(vcpu, True)
    assert (vmcb.v_intr, vmcb.intercept_misc1) == ((1 << 24) | (1 << 20) | (0xF << 16) | (1 << 8) | 7, 3 | 16)
    inject.request_window(vcpu, False)
    assert (vmcb.v_intr, vmcb.intercept_misc1) == ((1 << 24) | 7, 3)


def test_interrupts_are_virtual(vcpu: Vcpu, vmcb: Vmcb) -> None:
    """An interrupt is injected with V_IRQ, once; the window for another is the end of its handler, but no NMI's; exceptions go by EVENTINJ."""
    masking, virtual = 1 << 24, (1 << 20) | (0xF << 16) | (1 << 8)
    vmcb.v_intr, vmcb.intercept_misc1, vmcb.rflags = masking | 7, 3 | 16, 0x202
    inject.inject(vcpu, 0x8000_0031, 0)
    assert (vmcb.v_intr, vmcb.intercept_misc1, vmcb.event_injection) == (masking | virtual | 7 | 0x31 << 32, 3, 0)
    assert not inject.can_inject(vcpu)
    inject.request_window(vcpu, False)
    assert vmcb.v_intr == masking | virtual | 7 | 0x31 << 32
    for vcpu.nmi_masked, intercepts in ((True, 3), (False, 3 | 1 << 20)):
        inject.request_window(vcpu, True)
        assert (vmcb.v_intr, vmcb.intercept_misc1, vmcb.event_injection) == (masking | virtual | 7 | 0x31 << 32, intercepts, 0)
    inject.inject(vcpu, 0x8000_0B0E, 6)
    assert vmcb.event_injection == 0x8000_0B0E | 6 << 32


def valid(vmcb: Vmcb) -> None:
    vmcb.guest_asid, vmcb.intercept_misc2, vmcb.efer, vmcb.cr0, vmcb.cr4 = 1, 1, 0x1D00, 0x8000_0011, 0x20


@pytest.mark.parametrize("field, value, said", [
    ("guest_asid", 0, "guest_asid"), ("intercept_misc2", 0, "VMRUN"), ("efer", 0xD00, "SVME"), ("efer", 0x11D00 << 3, "efer"),
    ("cr0", 0xA000_0011, "NW"), ("cr0", 0x1_8000_0011, "cr0"), ("cr4", 0, "PAE"), ("cr0", 0x8000_0010, "PE"),
    ("dr7", 1 << 32, "dr7"), ("dr6", 1 << 32, "dr6"), ("cr3", 1 << 52, "cr3"), ("event_injection", 0x8000_0302, "event"),
    ("event_injection", 0x8000_0120, "event"), ("cr4", 0x8020, "cr4")])
def test_refused_field_is_named(vmcb: Vmcb, field: str, value: int, said: str) -> None:
    valid(vmcb)
    assert check.refused_field(vmcb) == ""
    setattr(vmcb, field, value)
    assert said in check.refused_field(vmcb)


def test_code_segment_of_two_modes(vmcb: Vmcb) -> None:
    valid(vmcb)
    vmcb.cs.attributes = 0x600
    assert "cs" in check.refused_field(vmcb)
