"""Bytes of the guest's code at RIP, for dumps and for what the hardware does not decode."""
from typing import Annotated, Final

from hypervisor.addresses import Hva
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.decoder import decode
from hypervisor.arch_x86.decoder.instruction import Instruction
from hypervisor.arch_x86.defs.cr import EFER_LMA
from hypervisor.arch_x86.state import CS, GuestState
from hypervisor.lang import address, array, u8, u32, u64, wrap_u64
from hypervisor.memory import guest_paging
from hypervisor.memory.guest_paging import PagingMode
from hypervisor.model import Vcpu

CS_LONG: Final[u32] = 1 << 13  # attributes in the VT-x layout
CS_DEFAULT_32: Final[u32] = 1 << 14  # D/B
MOST: Final = 15
CODE_BYTES: Final = 16


def fetch(vcpu: Vcpu, target: Hva) -> u32:
    """Copy up to MOST bytes at RIP to `target`; how many could be read."""
    owner = vcpu.vm
    assert owner is not None
    state = GuestState()
    mode = PagingMode()
    backend.read_state(vcpu, state)
    paging_mode(vcpu, state, mode)
    return guest_paging.fetch(owner, mode, linear_rip(vcpu, state), backend.cpl(vcpu) == 3, target, MOST)


def paging_mode(vcpu: Vcpu, state: GuestState, to: PagingMode) -> None:
    """What a walk of the guest's tables goes by; `state` has been read in this exit."""
    to.cr0 = state.cr0
    to.cr3 = state.cr3
    to.cr4 = state.cr4
    to.efer = state.efer
    to.rflags = vcpu.regs.rflags


def linear_rip(vcpu: Vcpu, state: GuestState) -> u64:
    """The linear address of the instruction."""
    if is_long(state):
        return vcpu.regs.rip
    return wrap_u64(vcpu.regs.rip + state.segments[CS].base) & 0xFFFFFFFF


def is_long(state: GuestState) -> bool:
    """Does the vCPU run 64-bit code?"""
    return state.efer & EFER_LMA != 0 and state.segments[CS].attributes & CS_LONG != 0


def bits(state: GuestState) -> u32:
    """What code the vCPU runs: 16, 32 or 64 bits."""
    if is_long(state):
        return 64
    return 32 if state.segments[CS].attributes & CS_DEFAULT_32 != 0 else 16


def decode_at_rip(vcpu: Vcpu, state: GuestState, to: Instruction) -> bool:
    """Take apart the instruction at RIP; False: refused, or not readable. The bytes are gone afterwards."""
    code: Annotated[list[u8], CODE_BYTES] = array(u8, CODE_BYTES)
    place = Hva(address(code))
    done = decode.decode(place, fetch(vcpu, place), bits(state), to)
    to.code = Hva(0)
    return done
