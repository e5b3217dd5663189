"""Random guest states at a VM entry, from a seed: whatever it is, that VM alone is stopped, or runs into its own faults. Debug images only."""
from typing import Annotated, Final

from hypervisor import vm
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.state import TR, GuestState
from hypervisor.console import say
from hypervisor.lang import struct, u16, u32, u64, wrap_u64
from hypervisor.model import Vcpu, Vm, VmState

FIELDS: Final = 20
FIELD_NAMES: Final[Annotated[list[str], FIELDS]] = [
    "cr0", "cr3", "cr4", "efer", "dr6", "dr7", "pat", "rip", "rsp", "rflags", "gdtr base", "gdtr limit", "idtr base", "idtr limit",
    "sysenter eip", "segment selector", "segment attributes", "segment limit", "segment base", "cr2"]
MOST_CHANGES: Final = 3
NASTY: Final[Annotated[list[u64], 8]] = [
    0, 1, 0xFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF]
MULTIPLIER: Final[u64] = 0x2545F4914F6CDD1D


@struct
class Chance:
    """xorshift64* (Vigna 2016)."""

    state: u64


chance: Final = Chance()


def draw() -> u64:
    """64 random bits."""
    x = chance.state
    x = x ^ (x >> 12)
    x = x ^ wrap_u64(x << 25)
    x = x ^ (x >> 27)
    chance.state = x
    return wrap_u64(x * MULTIPLIER)


def changed(value: u64) -> u64:
    """One bit of it, or none, or all of it is another."""
    match u32(draw() >> 62):
        case 0:
            return NASTY[draw() >> 61]
        case 1:
            return draw()
        case _:
            return value ^ (u64(1) << (draw() & 63))


def spoil(machine: Vm, seed: u64) -> None:
    """Change up to MOST_CHANGES registers of the VM's first vCPU, and say which. The VM's next entry shows what comes of it."""
    vcpu = machine.vcpus[0]
    if vcpu is None or machine.state != VmState.RUNNING:
        return
    chance.state = wrap_u64(seed * 0x9E3779B97F4A7C15) | 1
    state = GuestState()
    backend.read_state(vcpu, state)
    for _ in range(1 + draw() % MOST_CHANGES):
        field = u32(draw() % FIELDS)
        if field < 15:
            register(vcpu, state, field)
        elif field == 19:
            vcpu.regs.cr2 = changed(vcpu.regs.cr2)
        else:
            segment(state, field)
        say(f"vm '{vm.name(machine)}' seed {seed}: {FIELD_NAMES[field]} changed")
    backend.write_state(vcpu, state)


def register(vcpu: Vcpu, state: GuestState, field: u32) -> None:
    """One that is no segment."""
    match field:
        case 0:
            state.cr0 = changed(state.cr0)
        case 1:
            state.cr3 = changed(state.cr3)
        case 2:
            state.cr4 = changed(state.cr4)
        case 3:
            state.efer = changed(state.efer)
        case 4:
            state.dr6 = changed(state.dr6)
        case 5:
            state.dr7 = changed(state.dr7)
        case 6:
            state.pat = changed(state.pat)
        case 7:
            vcpu.regs.rip = changed(vcpu.regs.rip)
        case 8:
            vcpu.regs.rsp = changed(vcpu.regs.rsp)
        case 9:
            vcpu.regs.rflags = changed(vcpu.regs.rflags)
        case _:
            table(state, field)


def table(state: GuestState, field: u32) -> None:
    """GDTR, IDTR, SYSENTER."""
    match field:
        case 10:
            state.gdtr_base = changed(state.gdtr_base)
        case 11:
            state.gdtr_limit = u32(changed(state.gdtr_limit) & 0xFFFFFFFF)
        case 12:
            state.idtr_base = changed(state.idtr_base)
        case 13:
            state.idtr_limit = u32(changed(state.idtr_limit) & 0xFFFFFFFF)
        case _:
            state.sysenter_eip = changed(state.sysenter_eip)


def segment(state: GuestState, field: u32) -> None:
    """A part of any but TR: QEMU aborts when an exception of a guest finds a TSS that is none."""
    which = state.segments[draw() % TR]
    match field:
        case 15:
            which.selector = u16(changed(which.selector) & 0xFFFF)
        case 16:
            which.attributes = u32(changed(which.attributes) & 0x1F0FF)
        case 17:
            which.limit = u32(changed(which.limit) & 0xFFFFFFFF)
        case _:
            which.base = changed(which.base)
