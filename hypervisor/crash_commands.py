"""Faults of our own on demand, to see that each is decoded and ends the machine in order. Debug images only."""
from typing import Annotated, Final

from hypervisor import kick, text
from hypervisor.addresses import PAGE_SHIFT
from hypervisor.arch_x86 import backend, idt
from hypervisor.arch_x86.intrinsics import fill_memory, invlpg, load_u8, overflow_stack, raise_nmi, raise_ud, store_u64
from hypervisor.arch_x86.state import GuestState
from hypervisor.console import say
from hypervisor.cpu import cpus, online, this_cpu
from hypervisor.lang import link_address, text_at, u32, u64
from hypervisor.memory import ledger
from hypervisor.model import WORK_CRASH, Cpu, Vcpu, Vm, VmState

UNMAPPED: Final[u64] = 0x5000_0000_0000
NON_CANONICAL: Final[u64] = 0x8000_0000_0000_0000
DR7_RESERVED: Final[u64] = 1 << 32
KINDS: Final = 9


def run(kind: u64) -> None:
    """`debug crash KIND [CPU]`. Does not return if there is such a kind, and the CPU is this one or none is named."""
    rest = text.cut_word(kind)
    text.cut_word(rest)
    number: u64 = this_cpu().id if text.is_empty(text_at(rest)) else text.number_at(rest)
    for i in range(KINDS):
        if text.same(text_at(kind), NAMES[i]) and number < online.count:
            cpu = cpus[number]
            cpu.crash_kind = u32(i)
            kick.owe_to(cpu, WORK_CRASH)
            return
    say(f"debug crash pf|null|text|guest|gp|ud|df|nmi|stack [CPU, below {online.count}]")


def crash_here(cpu: Cpu) -> None:
    """What run or spoil_entry has asked of this CPU."""
    vcpu = cpu.vcpu
    if cpu.crash_kind < KINDS:
        ACTIONS[cpu.crash_kind]()
    elif vcpu is not None:
        spoil(vcpu)


def spoil_entry(machine: Vm) -> None:
    """Give a VM's first vCPU a state that no CPU enters a guest with: that VM alone is to be stopped."""
    vcpu = machine.vcpus[0]
    if vcpu is None or machine.state != VmState.RUNNING:
        return
    cpu = vcpu.cpu
    if vcpu.on_cpu and cpu is not None:
        cpu.crash_kind = KINDS  # only its own CPU may touch its state
        kick.owe_to(cpu, WORK_CRASH)
    else:
        spoil(vcpu)


def spoil(vcpu: Vcpu) -> None:
    """Set a reserved bit of DR7."""
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


def read_guest() -> None:
    """#PF, where the CPU has SMAP: a read of memory that guests may have, outside a window."""
    page: u64 = u64(ledger.book.first_free) << PAGE_SHIFT
    invlpg(page)  # it may have been the hypervisor's when this CPU looked last
    load_u8(page)
    say("debug crash guest: the CPU has no SMAP")


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


NAMES: Final[Annotated[list[str], KINDS]] = ["pf", "null", "text", "guest", "gp", "ud", "df", "nmi", "stack"]
ACTIONS: Final = (page_fault, null_reference, write_text, read_guest, general_protection, invalid_opcode, double_fault, nmi, overflow)
