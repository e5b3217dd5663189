"""Faults of our own on demand, to see that each is decoded and ends the machine in order. Debug images only."""
from typing import Annotated, Final

from hypervisor import text
from hypervisor.arch_x86 import backend, idt
from hypervisor.arch_x86.intrinsics import fill_memory, load_u8, overflow_stack, raise_nmi, raise_ud, store_u64
from hypervisor.arch_x86.state import GuestState
from hypervisor.console import say
from hypervisor.lang import link_address, text_at, u64
from hypervisor.model import Vm, VmState

UNMAPPED: Final[u64] = 0x5000_0000_0000
NON_CANONICAL: Final[u64] = 0x8000_0000_0000_0000
DR7_RESERVED: Final[u64] = 1 << 32
KINDS: Final = 8


def run(kind: u64) -> None:
    """`debug crash KIND`. Does not return if there is such a kind."""
    text.cut_word(kind)
    for i in range(KINDS):
        if text.same(text_at(kind), NAMES[i]):
            ACTIONS[i]()
    say("debug crash pf|null|text|gp|ud|df|nmi|stack")


def spoil_entry(machine: Vm) -> None:
    """Give a VM's first vCPU a state that no CPU enters a guest with: that VM alone is to be stopped."""
    vcpu = machine.vcpus[0]
    if vcpu is not None and machine.state == VmState.RUNNING:
        state = GuestState()
        backend.read_state(vcpu, state)
        state.dr7 |= DR7_RESERVED
        backend.write_state(vcpu, state)


def page_fault() -> None:
    """#PF: a read of what is not mapped."""
    load_u8(UNMAPPED)


def null_reference() -> None:
    """#PF: a write near address 0 (gcc would refuse to compile a plain one)."""
    fill_memory(16, 0, 1)


def write_text() -> None:
    """#PF: a write to code."""
    store_u64(link_address("__text_start"), 0)


def general_protection() -> None:
    """#GP: a read of a non-canonical address."""
    load_u8(NON_CANONICAL)


def double_fault() -> None:
    """#DF: an exception that the IDT, cut short, has no gate for."""
    idt.cut_behind_double_fault()
    load_u8(UNMAPPED)


def overflow() -> None:
    """#DF by way of the guard page below the stack."""
    overflow_stack()


def invalid_opcode() -> None:
    """#UD."""
    raise_ud()


def nmi() -> None:
    """A non-maskable interrupt."""
    raise_nmi()


NAMES: Final[Annotated[list[str], KINDS]] = ["pf", "null", "text", "gp", "ud", "df", "nmi", "stack"]
ACTIONS: Final = (page_fault, null_reference, write_text, general_protection, invalid_opcode, double_fault, nmi, overflow)
