"""INIT and start-up IPIs: how a vCPU gets its first instruction from another one (SDM vol. 3A, 9.4; registers: table 9-1).

Taken by the vCPU itself, while it is current: see inject.deliver.
"""
from typing import Final

from hypervisor import apic_bus, reboot, vm
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.cpu_features import signature
from hypervisor.arch_x86.defs.cr import CR0_CD, CR0_ET, CR0_NW, DR6_INIT, DR7_INIT, PAT_INIT, RFLAGS_RESERVED_ONE
from hypervisor.arch_x86.state import CS, LDTR, TR, GuestState
from hypervisor.devices import lapic
from hypervisor.lang import clear, u16, u32, u64
from hypervisor.model import Vcpu, VcpuState
from hypervisor.sched.wake import sleep

LIMIT_64K: Final = 0xFFFF
RIGHTS_CODE: Final = 0x9B  # present, code, readable, accessed
RIGHTS_DATA: Final = 0x93  # present, data, writable, accessed
RIGHTS_LDT: Final = 0x82
RIGHTS_TSS: Final = 0x8B  # busy


def take(vcpu: Vcpu) -> bool:
    """Take the INIT and the start-up IPI that wait for the current vCPU. False: it does not run on now."""
    apic = vcpu.lapic
    owner = vcpu.vm
    assert owner is not None
    if apic.init:
        if apic.base & lapic.BASE_BSP != 0:
            reboot.ask(owner, "an INIT of its first vCPU")
            vm.stopped(owner)
            return False
        initialise(vcpu)
    if not apic.waits_for_startup:
        apic.startup = False
        return True
    if not apic.startup:
        sleep(vcpu, VcpuState.PARKED)
        return False
    apic.startup = False
    apic.waits_for_startup = False
    start(vcpu, apic.startup_vector)
    return True


def initialise(vcpu: Vcpu) -> None:
    """INIT: everything but memory, FPU and MSRs is as after power-on; the vCPU then waits for a start-up IPI."""
    apic = vcpu.lapic
    startup = apic.startup  # one that came behind the INIT
    lapic.initialise(apic)
    apic.init = False
    apic.startup = startup
    apic.waits_for_startup = True
    apic_bus.carry_out(vcpu)
    vcpu.exception_pending = False
    vcpu.reinject = 0
    vcpu.event_interrupt = False
    vcpu.deaf = False
    vcpu.restart = False
    backend.drop_events(vcpu)


def start(vcpu: Vcpu, vector: u32) -> None:
    """In real mode, at the page that the vector names."""
    regs = vcpu.regs
    clear(regs)
    regs.rflags = RFLAGS_RESERVED_ONE
    regs.rdx = signature()
    state = GuestState()
    state.cr0 = CR0_CD | CR0_NW | CR0_ET
    state.dr6 = DR6_INIT
    state.dr7 = DR7_INIT
    state.pat = PAT_INIT
    for index in range(8):
        set_segment(state, u32(index), 0, 0, RIGHTS_DATA)
    set_segment(state, CS, u16(vector << 8 & 0xFFFF), u64(vector) << 12, RIGHTS_CODE)
    set_segment(state, LDTR, 0, 0, RIGHTS_LDT)
    set_segment(state, TR, 0, 0, RIGHTS_TSS)
    state.gdtr_limit = LIMIT_64K
    state.idtr_limit = LIMIT_64K
    backend.write_state(vcpu, state)


def set_segment(state: GuestState, index: u32, selector: u16, base: u64, rights: u32) -> None:
    """A segment of 64 KiB."""
    segment = state.segments[index]
    segment.selector = selector
    segment.base = base
    segment.limit = LIMIT_64K
    segment.attributes = rights
