"""Each #VMEXIT code, from a VMCB to VmExit."""
import pytest

from hypervisor.arch_x86.svm import decode, exit_table, init
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.arch_x86.vm_exit import REGISTER_UNKNOWN, Cause, VmExit
from hypervisor.cpu import cpus
from hypervisor.model import WORK_INJECT, Vcpu

ALL_ONES = (1 << 64) - 1


def decoded(vcpu: Vcpu, vmcb: Vmcb, code: int, info1: int = 0, info2: int = 0) -> VmExit:
    """Let the guest exit; `exit` holds rubbish before, as from an earlier exit, but for what decode may rely on."""
    vmcb.exit_code, vmcb.exit_info1, vmcb.exit_info2 = code, info1, info2
    exit = VmExit()
    exit.length, exit.vector, exit.port, exit.register = 9, 99, 99, 9
    decode.decode(vcpu, exit)
    return exit


@pytest.mark.parametrize("code, cause, length", [
    (0x60, Cause.INTERRUPT, 0), (0x61, Cause.NMI, 0), (0x64, Cause.INTERRUPT_WINDOW, 0), (0x72, Cause.CPUID, 2),
    (0x76, Cause.WBINVD, 2), (0x77, Cause.PAUSE, 2), (0x78, Cause.HLT, 1), (0x7C, Cause.RDMSR, 2), (0x7F, Cause.TRIPLE_FAULT, 0),
    (0x80, Cause.VMX_SVM_INSTRUCTION, 0), (0x81, Cause.HYPERCALL, 3), (0x82, Cause.VMX_SVM_INSTRUCTION, 0),
    (0x83, Cause.VMX_SVM_INSTRUCTION, 0), (0x84, Cause.VMX_SVM_INSTRUCTION, 0), (0x85, Cause.VMX_SVM_INSTRUCTION, 0),
    (0x86, Cause.VMX_SVM_INSTRUCTION, 0), (0x7A, Cause.VMX_SVM_INSTRUCTION, 0), (0x6F, Cause.RDPMC, 0),
    (0x89, Cause.WBINVD, 2), (0x8A, Cause.MONITOR_MWAIT, 0), (0x8B, Cause.MONITOR_MWAIT, 0), (0x8C, Cause.MONITOR_MWAIT, 0),
    (0x8D, Cause.XSETBV, 3), (0x8E, Cause.VMX_SVM_INSTRUCTION, 0), (0x6E, Cause.RDTSC, 0), (0x87, Cause.RDTSC, 0),
    (0x79, Cause.INVLPG, 0), (0x7D, Cause.UNKNOWN, 0), (0x62, Cause.UNKNOWN, 0), (0x63, Cause.UNKNOWN, 0)])
def test_cause_and_length(vcpu: Vcpu, vmcb: Vmcb, code: int, cause: Cause, length: int) -> None:
    exit = decoded(vcpu, vmcb, code)
    assert (exit.cause, exit.length) == (cause, length)


@pytest.mark.parametrize("code", [0x8F, 0x90, 0x3FF, 0x401, 1 << 40])
def test_codes_from_nowhere(vcpu: Vcpu, vmcb: Vmcb, code: int) -> None:
    assert decoded(vcpu, vmcb, code).cause == Cause.UNKNOWN


@pytest.mark.parametrize("code", [ALL_ONES, 0xFFFF_FFFF])
def test_refused_entry(vcpu: Vcpu, vmcb: Vmcb, code: int) -> None:
    assert decoded(vcpu, vmcb, code).cause == Cause.ENTRY_FAILURE


def test_wrmsr(vcpu: Vcpu, vmcb: Vmcb) -> None:
    exit = decoded(vcpu, vmcb, 0x7C, info1=1)
    assert (exit.cause, exit.length) == (Cause.WRMSR, 2)


def test_interrupt_has_no_vector(vcpu: Vcpu, vmcb: Vmcb) -> None:
    """It is still pending in the local APIC; a vector would be taken for one that VT-x has acknowledged."""
    assert decoded(vcpu, vmcb, 0x60).vector == 0


@pytest.mark.parametrize("info1, expected", [
    (0x03F8_0010, (0x3F8, 1, False, False, False)), (0x0060_0011, (0x60, 1, True, False, False)),
    (0x0CF8_0040, (0xCF8, 4, False, False, False)), (0x01F0_002D, (0x1F0, 2, True, True, True)),
    (0xFFFF_0014, (0xFFFF, 1, False, True, False))])
def test_io(vcpu: Vcpu, vmcb: Vmcb, info1: int, expected: tuple[int, int, bool, bool, bool]) -> None:
    vmcb.rip = 0x1000
    exit = decoded(vcpu, vmcb, 0x7B, info1, 0x1003)
    assert (exit.cause, exit.length) == (Cause.IO, 3)
    assert (exit.port, exit.size, exit.is_in, exit.is_string, exit.is_rep) == expected


@pytest.mark.parametrize("info1, expected", [
    (4, (False, False, False)), (6, (True, False, False)), (0x14, (False, True, False)), ((1 << 33) | 6, (True, False, True))])
def test_nested_fault(vcpu: Vcpu, vmcb: Vmcb, info1: int, expected: tuple[bool, bool, bool]) -> None:
    exit = decoded(vcpu, vmcb, 0x400, info1, 0x12_3456)
    assert (exit.cause, exit.gpa) == (Cause.NESTED_FAULT, 0x12_3456)
    assert (exit.is_write, exit.is_fetch, exit.in_page_walk) == expected


def test_exception(vcpu: Vcpu, vmcb: Vmcb) -> None:
    exit = decoded(vcpu, vmcb, 0x40 + 17, info1=5)
    assert (exit.cause, exit.vector, exit.error_code) == (Cause.EXCEPTION, 17, 5)


def test_control_register_without_assists(vcpu: Vcpu, vmcb: Vmcb) -> None:
    exit = decoded(vcpu, vmcb, 0x14)
    assert (exit.cause, exit.number, exit.is_write, exit.register, exit.length) == (Cause.CR_ACCESS, 4, True, REGISTER_UNKNOWN, 0)


def test_control_register_with_assists(vcpu: Vcpu, vmcb: Vmcb) -> None:
    init.host.decode_assists = init.host.nrip_save = True
    vmcb.rip, vmcb.next_rip = 0x1000, 0x1004
    exit = decoded(vcpu, vmcb, 0x14, info1=(1 << 63) | 9)
    assert (exit.number, exit.is_write, exit.register, exit.length) == (4, True, 9, 4)


def test_debug_register(vcpu: Vcpu, vmcb: Vmcb) -> None:
    exit = decoded(vcpu, vmcb, 0x26)
    assert (exit.cause, exit.number, exit.is_write) == (Cause.DR_ACCESS, 6, False)


@pytest.mark.parametrize("code", [0x72, 0x78, 0x7C, 0x81, 0x89, 0x8D])
def test_length_from_the_next_rip(vcpu: Vcpu, vmcb: Vmcb, code: int) -> None:
    """A prefix makes an instruction longer than usual; CPUs that save the next RIP tell."""
    init.host.nrip_save = True
    exit_table.fill(True)
    vmcb.rip, vmcb.next_rip = 0x1FFE, 0x2003
    assert decoded(vcpu, vmcb, code).length == 5


@pytest.mark.parametrize("info, again", [
    (0x8000_0020, 0x8000_0020), (0x8000_0202, 0x8000_0202), (0x8000_0B0E | 6 << 32, 0x8000_0B0E),
    (0x8000_0306, 0x8000_0306), (0x8000_0331, 0x8000_0031), (0x8000_0480, 0), (0x8000_0303, 0), (0x8000_0304, 0), (0x0000_0020, 0)])
def test_interrupted_delivery(vcpu: Vcpu, vmcb: Vmcb, info: int, again: int) -> None:
    """Interrupts, NMIs and exceptions come again; INT n, INT3 and INTO are executed again by themselves."""
    vmcb.exit_int_info = info
    vmcb.v_intr, vmcb.intercept_misc1 = 0x31 << 32 | 1 << 24 | 1 << 8, 0
    exit = decoded(vcpu, vmcb, 0x400, 6, 0x5000)
    assert vmcb.v_intr & 1 << 8 == (0 if again >> 8 == 0x80_0000 else 1 << 8), "a virtual interrupt that is injected again is not pending too"
    assert vcpu.reinject == again and exit.idt_vectoring == 0
    assert (cpus[0].work & WORK_INJECT != 0) == (again != 0)
    if again & 0x800:
        assert vcpu.reinject_error == 6
