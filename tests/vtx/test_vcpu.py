"""A vCPU's VMCS: made, entered, switched, its state and events."""
from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.state import CS, LDTR, TR, GuestState
from hypervisor.arch_x86.vm_exit import Cause, VmExit
from hypervisor.arch_x86.vtx import decode, init, inject, state, vcpu as vtx_vcpu, vmcs
from hypervisor.arch_x86.vtx.current import here
from hypervisor.lang import address, read_memory, sizeof
from hypervisor.memory import guest_memory
from hypervisor.cpu import cpus
from hypervisor.model import Cpu, Vcpu, Vm
from hypervisor.status import Status


def test_created_vmcs(vcpu: Vcpu, fields: dict[int, int]) -> None:
    assert fields[vmcs.EPT_POINTER] == 0x70_0000 | 0x5E
    assert fields[vmcs.VPID] == 2 * 64 + 1
    assert fields[vmcs.VMCS_LINK_POINTER] == 2**64 - 1
    assert fields[vmcs.HOST_TR_BASE] == 0x1234_89AB_CDEF
    assert fields[vmcs.HOST_RIP] == 0x20_1234


def run(cpu: Cpu, vcpu: Vcpu, rip: int, reason: int) -> VmExit:
    """Enter; the guest exits at `rip`."""
    def leave(region: dict[int, int], registers: int) -> None:
        region.update({vmcs.GUEST_RIP: rip, vmcs.EXIT_REASON: reason, vmcs.EXIT_INSTRUCTION_LENGTH: 2})

    machine.vmx.exits.append(leave)
    vtx_vcpu.enter(cpu, vcpu)
    decode.decode(vcpu, vcpu.exit)
    return vcpu.exit


def test_launch_then_resume(vcpu: Vcpu, fields: dict[int, int]) -> None:
    cpu = cpus[0]
    vcpu.regs.rip = 0x1000
    assert run(cpu, vcpu, 0x1010, 10).cause == Cause.CPUID
    assert vcpu.regs.rip == 0x1010
    assert run(cpu, vcpu, 0x1020, 12).cause == Cause.HLT
    vcpu.launched = False
    exit = run(cpu, vcpu, 0x1030, 12)
    assert exit.cause == Cause.ENTRY_FAILURE and exit.raw_info1 == 4
    assert vcpu.regs.rip == 0x1020


def test_skip_ends_the_sti_shadow(vcpu: Vcpu, fields: dict[int, int]) -> None:
    fields[vmcs.GUEST_INTERRUPTIBILITY] = vmcs.BLOCKED_BY_STI | vmcs.BLOCKED_BY_NMI
    fields[vmcs.GUEST_RFLAGS] = 0x202
    vcpu.regs.rip = fields[vmcs.GUEST_RIP] = 2**64 - 1
    assert not inject.can_inject(vcpu)
    exit = VmExit()
    exit.length = 2
    vtx_vcpu.skip(vcpu, exit)
    assert fields[vmcs.GUEST_INTERRUPTIBILITY] == vmcs.BLOCKED_BY_NMI  # at once: an entry without a call of can_inject may follow
    assert inject.can_inject(vcpu)
    assert vcpu.regs.rip == 1 and fields[vmcs.GUEST_INTERRUPTIBILITY] == vmcs.BLOCKED_BY_NMI


def test_a_single_step_across_emulation_is_noted(vcpu: Vcpu, fields: dict[int, int]) -> None:
    """DR6.BS, for the #DB that follows; what the CPU kept for after a MOV SS is not a second one."""
    fields[vmcs.GUEST_PENDING_DEBUG] = 1 << 14
    vtx_vcpu.note_single_step(vcpu)
    assert vcpu.dr6 & 1 << 14 and fields[vmcs.GUEST_PENDING_DEBUG] == 0


def test_switched_msrs_follow_the_vcpu(vm: Vm, vcpu: Vcpu) -> None:
    cpu = cpus[0]
    other = Vcpu()
    other.vm, other.index = vm, 1
    assert vtx_vcpu.create(vm, other) == Status.OK
    vcpu.lstar, other.lstar, other.dr6 = 0x111, 0x222, 0xFFFF_0FF1
    vtx_vcpu.switch_to(cpu, vm, vcpu)
    assert machine.msrs[0xC000_0082] == 0x111
    machine.msrs[0xC000_0102] = 0x333  # the guest's SWAPGS
    machine.registers.update({"dr6": 0xFFFF_4FF0, "cr2": 0x444})
    vtx_vcpu.leave(cpu, vcpu)
    vtx_vcpu.switch_to(cpu, vm, other)
    assert machine.msrs[0xC000_0082] == 0x222 and machine.registers["dr6"] == 0xFFFF_0FF1
    assert vcpu.kernel_gs_base == 0x333 and vcpu.dr6 == 0xFFFF_4FF0
    assert vcpu.regs.cr2 == 0x444 and machine.registers["cr2"] == 0
    assert machine.vmx.current == other.backend_hpa
    vtx_vcpu.destroy(vm, other)
    vtx_vcpu.switch_to(cpu, vm, vcpu)
    assert machine.msrs[0xC000_0102] == 0x333 and vm.overhead_frames == 2


def filled(seed: st.DataObject, paging: bool) -> GuestState:
    """A state with random values where anything is allowed."""
    word, half = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
    made = GuestState()
    for name in ("cr3", "dr7", "pat", "gdtr_base", "idtr_base", "kernel_gs_base", "star", "lstar", "cstar", "sfmask",
                 "sysenter_cs", "sysenter_esp", "sysenter_eip", "dr6"):
        setattr(made, name, seed.draw(half if name == "sysenter_cs" else word))
    made.gdtr_limit, made.idtr_limit = 0xFFFF, 0x3FF
    made.cr0 = 0x8000_0011 if paging else 0x6000_0010
    made.cr4 = seed.draw(st.integers(0, 0x7FF))
    made.efer = 0x501 if paging else 0x101
    for index in range(8):
        segment = made.segments[index]
        segment.selector, segment.base, segment.limit = seed.draw(st.integers(0, 0xFFFF)), seed.draw(word), seed.draw(half)
        segment.attributes = 0x8B if index == TR else 0x93
    return made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(seed=st.data(), paging=st.booleans(), current=st.booleans())
def test_state_round_trip(vcpu: Vcpu, vm: Vm, seed: st.DataObject, paging: bool, current: bool) -> None:
    """The guest reads back what was written, CR0.CD and the missing CR0.NE included."""
    if current:
        vtx_vcpu.switch_to(cpus[0], vm, vcpu)
    written, back = filled(seed, paging), GuestState()
    vcpu.regs.rsp, vcpu.regs.rflags, vcpu.regs.cr2 = 0x8000, 0x202, 0x999
    state.write_state(vcpu, written)
    vcpu.regs.rsp, vcpu.regs.rflags, vcpu.regs.cr2 = 0, 0, 0x999 if not current else 0
    state.read_state(vcpu, back)
    assert (vcpu.regs.rsp, vcpu.regs.rflags, vcpu.regs.cr2) == (0x8000, 0x202, 0x999)
    assert read_memory(address(back), sizeof(GuestState)) == read_memory(address(written), sizeof(GuestState))


def test_what_vmx_needs_is_set_for_real(vcpu: Vcpu, fields: dict[int, int]) -> None:
    wanted = GuestState()
    wanted.cr0, wanted.cr4, wanted.efer = 0xE000_0011, 0x20, 0x100
    state.write_state(vcpu, wanted)
    assert fields[vmcs.GUEST_CR0] == 0x8000_0031 and fields[vmcs.CR0_SHADOW] == 0xE000_0011
    assert fields[vmcs.GUEST_CR4] == 0x2020 and fields[vmcs.CR4_SHADOW] == 0x20
    wanted.cr4 = 0x4_0020  # OSXSAVE, which CPUID shows
    state.write_state(vcpu, wanted)
    assert vtx_vcpu.cr4(vcpu) == 0x4_0020
    assert fields[vmcs.GUEST_EFER] == 0x500 and fields[vmcs.ENTRY_CONTROLS] >> 9 & 1 == 1
    assert fields[vmcs.GUEST_ES_RIGHTS + 2 * TR] == 0x8B
    assert fields[vmcs.GUEST_ES_RIGHTS + 2 * LDTR] == fields[vmcs.GUEST_ES_RIGHTS + 2 * CS] == 0x10000


def test_page_directory_pointers_are_loaded_whole_or_not_at_all(vcpu: Vcpu, fields: dict[int, int],
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits 63:32 of CR3 do not count; a write of the state alone loads nothing; one reserved bit in a present entry refuses all."""
    memory = {0x12_3460 + 8 * i: 0x1000 * i + 1 for i in range(4)}
    monkeypatch.setattr(guest_memory, "read_u64", lambda vm, gpa: memory[gpa])
    monkeypatch.setattr(features, "physical_bits", 40)
    vm = Vm()
    wanted = GuestState()
    wanted.cr0, wanted.cr3, wanted.cr4 = 0x8000_0011, 0xF_0012_3460, 0x20
    state.write_state(vcpu, wanted)
    assert vmcs.GUEST_PDPTE0 not in fields
    for bad in (0x003, 0x021, 0x101, 1 << 40 | 1, 1 << 63 | 1):
        memory[0x12_3478] = bad
        assert not state.load_pdptes(vcpu, vm, wanted.cr3) and vmcs.GUEST_PDPTE0 not in fields
        memory[0x12_3478] = bad & ~1
        assert state.load_pdptes(vcpu, vm, wanted.cr3)
        assert [fields.pop(vmcs.GUEST_PDPTE0 + 2 * i) for i in range(4)] == [1, 0x1001, 0x2001, bad & ~1]


def test_injection(vcpu: Vcpu, fields: dict[int, int]) -> None:
    fields[vmcs.GUEST_CR0] = 0x8000_0031
    inject.inject(vcpu, 0x8000_0B0D, 0x18)
    assert fields[vmcs.ENTRY_INTERRUPTION_INFO] == 0x8000_0B0D and fields[vmcs.ENTRY_EXCEPTION_ERROR] == 0x18
    fields[vmcs.GUEST_CR0] = 0x30
    inject.inject(vcpu, 0x8000_0B0D, 0x18)
    assert fields[vmcs.ENTRY_INTERRUPTION_INFO] == 0x8000_030D


@pytest.mark.parametrize("flags, shadow, due, able", [
    (0x202, 0, 0, True), (0x002, 0, 0, False), (0x202, 1, 0, False), (0x202, 2, 0, False), (0x202, 8, 0, True),
    (0x202, 0, 0x8000_0B0D, False)])
def test_can_inject(vcpu: Vcpu, fields: dict[int, int], flags: int, shadow: int, due: int, able: bool) -> None:
    fields[vmcs.GUEST_RFLAGS] = flags
    fields[vmcs.GUEST_INTERRUPTIBILITY] = shadow
    fields[vmcs.ENTRY_INTERRUPTION_INFO] = due
    assert inject.can_inject(vcpu) == able


def test_window(vcpu: Vcpu, fields: dict[int, int]) -> None:
    before = fields[vmcs.PROCESSOR_CONTROLS]
    inject.request_window(vcpu, True)
    assert fields[vmcs.PROCESSOR_CONTROLS] == before | 4
    inject.request_window(vcpu, False)
    assert fields[vmcs.PROCESSOR_CONTROLS] == before


def test_no_memory(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    from hypervisor.addresses import Hpa
    from hypervisor.memory import frames

    for available in (0, 1):
        free = [0x10_0000][:available]
        monkeypatch.setattr(frames, "alloc_zeroed", lambda: Hpa(free.pop() if free else 0))
        monkeypatch.setattr(frames, "free", free.append)
        assert vtx_vcpu.create(vm, Vcpu()) == Status.NO_MEMORY and vm.overhead_frames == 0
        assert len(free) == available


def test_detect(cpu: list[str]) -> None:
    assert init.detect() == Status.NOT_FOUND
    machine.cpuid_leaves[(1, 0)] = (0, 0, 1 << 5, 0)
    machine.msrs[0x3A] = 5
    assert init.detect() == Status.OK
    machine.msrs[0x3A] = 1
    assert init.detect() == Status.UNSUPPORTED and "locked" in cpu[-1]
    machine.msrs[0x3A] = 0
    machine.msrs[0x48C] &= ~(1 << 6)
    assert init.detect() == Status.UNSUPPORTED and cpu[-1] == "vtx: the CPU lacks EPT walk of 4 levels"


def test_init_cpu() -> None:
    machine.msrs.update({0x3A: 0, 0x485: 5})
    machine.registers.update({"cr0": 0x8001_0011, "cr4": 0x20})
    cpu = cpus[0]
    assert init.init_cpu(cpu) == Status.OK
    assert machine.msrs[0x3A] == 5 and machine.vmx.on
    assert machine.registers["cr4"] == 0x2020 and machine.registers["cr0"] == 0x8001_0031
    assert read_memory(cpu.vendor_hva, 4) == 0x2B
    closed = [msr for msr in list(range(0x2000)) + list(range(0xC000_0000, 0xC000_2000)) if not is_open(msr)]
    assert len(closed) == 2 * 0x2000 - 11 and 0xC000_0080 in closed and 0x1B in closed
    assert is_open(0xC000_0102) and is_open(0x277)


def is_open(msr: int) -> bool:
    """Whether a guest reads and writes the MSR without an exit."""
    place = here.msr_bitmap + (1024 if msr >= 0xC000_0000 else 0) + (msr & 0x1FFF) // 8
    closed = [read_memory(place + half, 1) >> (msr & 7) & 1 for half in (0, 2048)]
    assert closed[0] == closed[1]
    return closed[0] == 0
