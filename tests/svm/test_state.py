"""GuestState through the VMCB and back."""
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor.arch_x86.defs.cr import EFER_SVME
from hypervisor.arch_x86.defs.svm import INTERCEPT_CR0_SEL_WRITE
from hypervisor.arch_x86.state import CS, SS, GuestState
from hypervisor.arch_x86.svm import state as svm_state
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.lang import address, clear, read_memory, sizeof
from hypervisor.model import Vcpu

WORDS = ["cr0", "cr3", "cr4", "dr6", "dr7", "pat", "gdtr_base", "idtr_base", "kernel_gs_base", "star", "lstar", "cstar",
         "sfmask", "sysenter_cs", "sysenter_esp", "sysenter_eip"]
u16s, u32s, u64s = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
attributes = st.one_of(st.just(0x10000), st.integers(0, 0xFFFF).map(lambda bits: bits & 0xF0FF | 0x80))


@given(st.lists(u64s, min_size=len(WORDS) + 3, max_size=len(WORDS) + 3), u32s, u32s,
       st.lists(st.tuples(u16s, attributes, u32s, u64s), min_size=8, max_size=8))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_round_trip(vcpu: Vcpu, words: list[int], gdtr_limit: int, idtr_limit: int,
                    segments: list[tuple[int, int, int, int]]) -> None:
    given_state, found = GuestState(), GuestState()
    for name, word in zip(WORDS, words):
        setattr(given_state, name, word)
    given_state.gdtr_limit, given_state.idtr_limit = gdtr_limit, idtr_limit
    for index, (selector, rights, limit, base) in enumerate(segments):
        segment = given_state.segments[index]
        segment.selector, segment.attributes, segment.limit, segment.base = selector, rights, limit, base
    vcpu.regs.rsp, vcpu.regs.rflags, vcpu.regs.cr2 = words[-3:]
    svm_state.write_state(vcpu, given_state)
    clear(vcpu.regs)
    svm_state.read_state(vcpu, found)
    assert read_memory(address(found), sizeof(GuestState)) == read_memory(address(given_state), sizeof(GuestState))
    assert [vcpu.regs.rsp, vcpu.regs.rflags, vcpu.regs.cr2] == words[-3:]


def test_svme_is_the_hosts_alone(vcpu: Vcpu, vmcb: Vmcb) -> None:
    """VMRUN wants EFER.SVME; the guest does not see it."""
    state = GuestState()
    state.efer, state.cr0 = 0xD01, 0x80000011
    svm_state.write_state(vcpu, state)
    assert vmcb.efer == 0xD01 | EFER_SVME
    svm_state.read_state(vcpu, state)
    assert state.efer == 0xD01


def test_long_mode_waits_for_paging(vcpu: Vcpu, vmcb: Vmcb) -> None:
    """LME without paging is shown to the guest, not to VMRUN; the write of CR0 that turns paging on exits."""
    state = GuestState()
    state.efer = 0x900
    for cr0, shown, intercepted in ((0x11, 0x1800, True), (0x80000011, 0x1900, False), (0x11, 0x1800, True)):
        state.cr0 = cr0
        svm_state.write_state(vcpu, state)
        assert vmcb.efer == shown and (vmcb.intercept_misc1 & INTERCEPT_CR0_SEL_WRITE != 0) == intercepted
        svm_state.read_state(vcpu, state)
        assert state.efer == 0x900
    state.efer = 0x800
    svm_state.write_state(vcpu, state)
    assert vmcb.efer == 0x1800 and vmcb.intercept_misc1 & INTERCEPT_CR0_SEL_WRITE == 0


def test_privilege_follows_ss(vcpu: Vcpu, vmcb: Vmcb) -> None:
    state = GuestState()
    state.segments[SS].attributes = 0xC0F3
    state.segments[CS].attributes = 0xA0FB
    svm_state.write_state(vcpu, state)
    assert vmcb.cpl == 3 and vmcb.cs.attributes == 0xAFB and vmcb.ss.attributes == 0xCF3
