"""INS and OUTS, with REP: a bounded number of elements at each dispatch, restartable between any two.

Neither address size nor segment is known on every CPU, so the instruction's prefixes are read (AMD APM vol. 3, INS, OUTS). Registers
are written after each element, as the CPU does it, so that a fault in the middle shows the state the guest expects.
"""
from typing import Final

from hypervisor import board, guest_code, guest_operand
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.decoder.instruction import MAP_ONE_BYTE, NO_SEGMENT, Instruction, size_mask
from hypervisor.arch_x86.state import DS, ES, GuestState
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.devices import platform
from hypervisor.guest_operand import Operand
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import u32, u64, wrap_u64
from hypervisor.model import Vcpu
from hypervisor.status import Status

MOST_ELEMENTS: Final = 8  # at each dispatch: each may be a newline, which shows a line on the operator's console
RFLAGS_DF: Final[u64] = 1 << 10
INS_FIRST: Final = 0x6C
OUTS_LAST: Final = 0x6F
ALL_ONES: Final = 0xFFFF_FFFF
ALL_ONES_64: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF


def read_prefixes(vcpu: Vcpu, state: GuestState, code: Instruction) -> bool:
    """Decode the instruction; False: it is not INS or OUTS any more."""
    return guest_code.decode_at_rip(vcpu, state, code) and code.map == MAP_ONE_BYTE and INS_FIRST <= code.opcode <= OUTS_LAST


def move(vcpu: Vcpu, exit: VmExit, state: GuestState, code: Instruction) -> Status:
    """One element, all of it or nothing. WAIT: memory is not there; NOT_FOUND: an exception was raised."""
    vm = vcpu.vm
    assert vm is not None
    operand = Operand()
    segment: u32 = ES
    offset: u64 = vcpu.regs.rdi
    if not exit.is_in:
        segment = code.segment if code.segment != NO_SEGMENT else DS
        offset = vcpu.regs.rsi
    guest_operand.place(operand, state, segment, offset & size_mask(code.address_size), code.address_size)
    status = guest_operand.find(vcpu, state, operand, exit.size, exit.is_in)
    if status != Status.OK:
        return status
    if exit.is_in:
        guest_operand.store(vcpu, operand, port_in(vcpu, exit))
    else:
        port_out(vcpu, exit, u32(guest_operand.load(vcpu, operand)))
    return Status.OK


def port_in(vcpu: Vcpu, exit: VmExit) -> u32:
    """One element from the port."""
    vm = vcpu.vm
    assert vm is not None
    p = vm.platform
    if p is None:
        vm.holes_touched += 1
        return ALL_ONES
    return platform.read(p, exit.port, exit.size, board.guest_time(vm))


def port_out(vcpu: Vcpu, exit: VmExit, value: u32) -> None:
    """One element to the port."""
    vm = vcpu.vm
    assert vm is not None
    p = vm.platform
    if p is None:
        vm.holes_touched += 1
    else:
        platform.write(p, exit.port, exit.size, value, board.guest_time(vm))


def step(vcpu: Vcpu, exit: VmExit, code: Instruction) -> None:
    """Count one element: RSI or RDI by the direction flag, RCX with REP."""
    regs = vcpu.regs
    amount: u64 = wrap_u64(0 - exit.size) if regs.rflags & RFLAGS_DF else exit.size
    if exit.is_in:
        regs.rdi = guest_operand.counted(regs.rdi, amount, code.address_size)
    else:
        regs.rsi = guest_operand.counted(regs.rsi, amount, code.address_size)
    if exit.is_rep:
        regs.rcx = guest_operand.counted(regs.rcx, ALL_ONES_64, code.address_size)


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Up to MOST_ELEMENTS; the instruction is executed again for the rest."""
    vm = vcpu.vm
    assert vm is not None
    state = GuestState()
    code = Instruction()
    backend.read_state(vcpu, state)
    if not read_prefixes(vcpu, state, code):
        return Outcome.RESUME
    for _ in range(MOST_ELEMENTS):
        if exit.is_rep and vcpu.regs.rcx & size_mask(code.address_size) == 0:
            return Outcome.SKIP
        status = move(vcpu, exit, state, code)
        if status == Status.WAIT:
            return Outcome.WAIT
        if status == Status.NOT_FOUND:
            return Outcome.RESUME
        if status != Status.OK:
            return Outcome.STOP
        step(vcpu, exit, code)
        p = vm.platform
        if p is not None and p.effects != 0:
            outcome = board.carry_out(vcpu, vm, p)
            if outcome != Outcome.SKIP:
                return outcome
        if not exit.is_rep:
            return Outcome.SKIP
    return Outcome.RESUME
