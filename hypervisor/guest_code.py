"""Bytes of the guest's code at RIP, for dumps and for what the hardware does not decode."""
from typing import Final

from hypervisor.addresses import Hva
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.defs.cr import EFER_LMA
from hypervisor.arch_x86.state import CS, GuestState
from hypervisor.lang import u32, u64, wrap_u64
from hypervisor.memory import guest_paging
from hypervisor.memory.guest_paging import PagingMode
from hypervisor.model import Vcpu

CS_LONG: Final[u32] = 1 << 13  # attributes in the VT-x layout
MOST: Final = 15


def fetch(vcpu: Vcpu, target: Hva) -> u32:
    """Copy up to MOST bytes at RIP to `target`; how many could be read."""
    owner = vcpu.vm
    assert owner is not None
    state = GuestState()
    mode = PagingMode()
    backend.read_state(vcpu, state)
    mode.cr0 = state.cr0
    mode.cr3 = state.cr3
    mode.cr4 = state.cr4
    mode.efer = state.efer
    mode.rflags = vcpu.regs.rflags
    linear: u64 = vcpu.regs.rip
    if not is_long(state):
        linear = wrap_u64(linear + state.segments[CS].base) & 0xFFFFFFFF
    return guest_paging.fetch(owner, mode, linear, backend.cpl(vcpu) == 3, target, MOST)


def is_long(state: GuestState) -> bool:
    """Does the vCPU run 64-bit code?"""
    return state.efer & EFER_LMA != 0 and state.segments[CS].attributes & CS_LONG != 0


def runs_long(vcpu: Vcpu) -> bool:
    """The same, from the vCPU."""
    state = GuestState()
    backend.read_state(vcpu, state)
    return is_long(state)
