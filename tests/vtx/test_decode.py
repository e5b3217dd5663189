"""Each exit reason and its qualification, from a scripted VMCS to VmExit."""
from __future__ import annotations

from typing import Any

import pytest

from hypervisor.arch_x86.fake.machine import GeneralProtection, machine
from hypervisor.arch_x86.vm_exit import Cause, VmExit
from hypervisor.arch_x86.vtx import decode, vmcs
from hypervisor.arch_x86.vtx.current import here
from hypervisor.model import Vcpu


def decoded(vcpu: Vcpu, fields: dict[int, int], reason: int, **values: int) -> VmExit:
    """Let the guest exit with this reason, qualification and so on."""
    names = {"qualification": vmcs.EXIT_QUALIFICATION, "length": vmcs.EXIT_INSTRUCTION_LENGTH,
             "gpa": vmcs.GUEST_PHYSICAL_ADDRESS, "event": vmcs.EXIT_INTERRUPTION_INFO,
             "event_error": vmcs.EXIT_INTERRUPTION_ERROR, "vectoring": vmcs.IDT_VECTORING_INFO,
             "vectoring_error": vmcs.IDT_VECTORING_ERROR}
    for field in names.values():
        fields[field] = 0
    for name, value in values.items():
        fields[names[name]] = value
    exit = VmExit()
    exit.raw_reason = reason
    decode.decode(vcpu, exit)
    return exit


@pytest.mark.parametrize("reason, cause", [
    (2, Cause.TRIPLE_FAULT), (7, Cause.INTERRUPT_WINDOW), (10, Cause.CPUID), (11, Cause.VMX_SVM_INSTRUCTION), (15, Cause.RDPMC),
    (12, Cause.HLT), (13, Cause.WBINVD), (14, Cause.INVLPG), (16, Cause.RDTSC), (18, Cause.HYPERCALL),
    (19, Cause.VMX_SVM_INSTRUCTION), (27, Cause.VMX_SVM_INSTRUCTION), (31, Cause.RDMSR), (32, Cause.WRMSR),
    (36, Cause.MONITOR_MWAIT), (39, Cause.MONITOR_MWAIT), (40, Cause.PAUSE), (50, Cause.VMX_SVM_INSTRUCTION),
    (51, Cause.RDTSC), (53, Cause.VMX_SVM_INSTRUCTION), (54, Cause.WBINVD), (55, Cause.XSETBV), (9, Cause.UNKNOWN),
    (8, Cause.INTERRUPT_WINDOW), (43, Cause.INTERRUPT_WINDOW), (49, Cause.UNKNOWN), (64, Cause.UNKNOWN), (65, Cause.UNKNOWN), (0x1FF, Cause.UNKNOWN)])
def test_cause(vcpu: Vcpu, fields: dict[int, int], reason: int, cause: Cause) -> None:
    exit = decoded(vcpu, fields, reason)
    assert (exit.cause, exit.raw_reason) == (cause, reason)


@pytest.mark.parametrize("reason", [10, 12, 18, 31, 32, 54, 55])
def test_length_of_an_instruction(vcpu: Vcpu, fields: dict[int, int], reason: int) -> None:
    assert decoded(vcpu, fields, reason, length=3).length == 3


@pytest.mark.parametrize("qualification, expected", [
    (0x03F8_0000, (0x3F8, 1, False, False, False)), (0x0060_0008, (0x60, 1, True, False, False)),
    (0x0CF8_0003, (0xCF8, 4, False, False, False)), (0x01F0_0039, (0x1F0, 2, True, True, True)),
    (0xFFFF_0010, (0xFFFF, 1, False, True, False))])
def test_io(vcpu: Vcpu, fields: dict[int, int], qualification: int, expected: tuple[Any, ...]) -> None:
    exit = decoded(vcpu, fields, 30, qualification=qualification, length=2)
    assert exit.cause == Cause.IO and exit.length == 2
    assert (exit.port, exit.size, exit.is_in, exit.is_string, exit.is_rep) == expected


@pytest.mark.parametrize("qualification, expected", [
    (0x181, (False, False, False)), (0x182, (True, False, False)), (0x184, (False, True, False)),
    (0x081, (False, False, True)), (0x083, (True, False, True)), (0x002, (True, False, False))])
def test_ept_violation(vcpu: Vcpu, fields: dict[int, int], qualification: int, expected: tuple[bool, ...]) -> None:
    exit = decoded(vcpu, fields, 48, qualification=qualification, gpa=0x1234_5678)
    assert exit.cause == Cause.NESTED_FAULT and exit.gpa == 0x1234_5678 and exit.length == 0
    assert (exit.is_write, exit.is_fetch, exit.in_page_walk) == expected


@pytest.mark.parametrize("qualification, number, is_write, register", [
    (0x0300, 0, True, 3), (0x0F14, 4, False, 15), (0x0008, 8, True, 0), (0x0118, 8, False, 1)])
def test_control_register(vcpu: Vcpu, fields: dict[int, int], qualification: int, number: int, is_write: bool,
                          register: int) -> None:
    exit = decoded(vcpu, fields, 28, qualification=qualification, length=3)
    assert (exit.cause, exit.number, exit.is_write, exit.register) == (Cause.CR_ACCESS, number, is_write, register)


@pytest.mark.parametrize("qualification", [0x20, 0x30])
def test_clts_and_lmsw_are_not_expected(vcpu: Vcpu, fields: dict[int, int], qualification: int) -> None:
    assert decoded(vcpu, fields, 28, qualification=qualification).cause == Cause.UNKNOWN


def test_debug_register(vcpu: Vcpu, fields: dict[int, int]) -> None:
    exit = decoded(vcpu, fields, 29, qualification=0x0A17, length=3)
    assert (exit.cause, exit.number, exit.is_write, exit.register) == (Cause.DR_ACCESS, 7, False, 10)


def test_interrupt_carries_the_acknowledged_vector(vcpu: Vcpu, fields: dict[int, int]) -> None:
    exit = decoded(vcpu, fields, 1, event=0x8000_0041)
    assert (exit.cause, exit.vector, exit.length) == (Cause.INTERRUPT, 0x41, 0)


def test_preemption_timer_is_armed_again(vcpu: Vcpu, fields: dict[int, int]) -> None:
    here.preemption_ticks = 777
    fields[vmcs.PREEMPTION_TIMER] = 0
    exit = decoded(vcpu, fields, 52)
    assert (exit.cause, exit.vector) == (Cause.INTERRUPT, 0)
    assert fields[vmcs.PREEMPTION_TIMER] == 777


def test_exception(vcpu: Vcpu, fields: dict[int, int]) -> None:
    exit = decoded(vcpu, fields, 0, event=0x8000_0B11, event_error=0x55)
    assert (exit.cause, exit.vector, exit.error_code) == (Cause.EXCEPTION, 17, 0x55)
    exit = decoded(vcpu, fields, 0, event=0x8000_0301, event_error=0x55, qualification=0x4000)
    assert (exit.vector, exit.error_code, exit.raw_info1) == (1, 0, 0x4000)


def test_debug_exception_reaches_dr6(vcpu: Vcpu, fields: dict[int, int]) -> None:
    machine.registers["dr6"] = 0xFFFF_0FF3
    fields[vmcs.GUEST_INTERRUPTIBILITY] = vmcs.BLOCKED_BY_STI
    decoded(vcpu, fields, 0, event=0x8000_0301, qualification=0x4004)
    assert machine.registers["dr6"] == 0xFFFF_4FF4 and fields[vmcs.GUEST_INTERRUPTIBILITY] == 0


def test_nmi_goes_to_the_hosts_handler(vcpu: Vcpu, fields: dict[int, int]) -> None:
    with pytest.raises(GeneralProtection, match="INT 2"):
        decoded(vcpu, fields, 0, event=0x8000_0202)


@pytest.mark.parametrize("vectoring, again", [
    (0x8000_0030, 0x8000_0030), (0x8000_0B0E, 0x8000_0B0E), (0x8000_1B0E, 0x8000_0B0E), (0x8000_0480, 0), (0x8000_0603, 0),
    (0x8000_0501, 0), (0x0000_0B0E, 0)])
def test_interrupted_delivery(vcpu: Vcpu, fields: dict[int, int], vectoring: int, again: int) -> None:
    """Interrupts, NMIs and exceptions are injected again; software ones are executed again."""
    exit = decoded(vcpu, fields, 48, vectoring=vectoring, vectoring_error=6)
    assert exit.idt_vectoring == again
    if again:
        assert exit.idt_vectoring_error == 6


def test_interrupted_nmi_is_not_blocked_when_it_comes_again(vcpu: Vcpu, fields: dict[int, int]) -> None:
    fields[vmcs.GUEST_INTERRUPTIBILITY] = vmcs.BLOCKED_BY_NMI
    exit = decoded(vcpu, fields, 48, vectoring=0x8000_0202)
    assert exit.idt_vectoring == 0x8000_0202 and fields[vmcs.GUEST_INTERRUPTIBILITY] == 0


def test_iret_that_faults_leaves_nmis_blocked(vcpu: Vcpu, fields: dict[int, int]) -> None:
    fields[vmcs.GUEST_INTERRUPTIBILITY] = 0
    decoded(vcpu, fields, 48, qualification=0x1181)
    assert fields[vmcs.GUEST_INTERRUPTIBILITY] == vmcs.BLOCKED_BY_NMI


def test_entry_that_was_refused(vcpu: Vcpu, fields: dict[int, int], cpu: list[str]) -> None:
    fields[vmcs.INSTRUCTION_ERROR] = 7
    exit = VmExit()
    exit.raw_reason = 0xFFFE
    decode.decode(vcpu, exit)
    assert (exit.cause, exit.raw_info1) == (Cause.ENTRY_FAILURE, 7)
    assert cpu == ["vtx: VM entry failed, error 7: invalid control field"]


@pytest.mark.parametrize("field, value, said", [
    (vmcs.GUEST_DR7, 0x1_0000_0400, "DR7 = 0x100000400: a bit above 31 is 1"),
    (vmcs.GUEST_RFLAGS, 0, "RFLAGS = 0x0: bit 1 is 0"),
    (vmcs.GUEST_CR4, 0x20, "CR4 = 0x20: a bit that VMX fixes to 1 is 0"),
    (vmcs.GUEST_ES_RIGHTS + 2, 0xA092, "CS = 0xa092: type is not accessed code (or 3, data)"),
    (vmcs.GUEST_ES_RIGHTS + 14, 0x10000, "TR = 0x10000: unusable"),
    (vmcs.GUEST_INTERRUPTIBILITY, 1, "interruptibility = 0x1: blocked by STI while IF is 0")])
def test_refused_guest_state_names_the_rule(vcpu: Vcpu, fields: dict[int, int], cpu: list[str], field: int, value: int,
                                            said: str) -> None:
    from hypervisor.arch_x86.vtx import failure

    valid_long_mode(fields)
    exit = decoded(vcpu, fields, 0x8000_0021)
    assert exit.cause == Cause.ENTRY_FAILURE and cpu[-1] == "vtx: none of the rules that Krait knows is broken"
    fields[field] = value
    cpu.clear()
    decoded(vcpu, fields, 0x8000_0021)
    assert cpu == ["vtx: VM entry refused the guest state (qualification 0x0)", f"vtx:   {said}"]
    assert failure.latest.field == said.split(" =")[0]


def valid_long_mode(fields: dict[int, int]) -> None:
    """Guest state that a VM entry takes."""
    fields.update({vmcs.GUEST_CR0: 0x8000_0031, vmcs.GUEST_CR4: 0x2020, vmcs.GUEST_EFER: 0x500, vmcs.GUEST_RFLAGS: 2})
    fields[vmcs.ENTRY_CONTROLS] |= 1 << 9
    for segment in range(8):
        fields[vmcs.GUEST_ES_RIGHTS + 2 * segment] = {1: 0xA09B, 6: 0x10000, 7: 0x8B}.get(segment, 0xC093)
        fields[vmcs.GUEST_ES_LIMIT + 2 * segment] = {7: 0x67}.get(segment, 0xFFFF_FFFF)
    assert machine.vmx.current
