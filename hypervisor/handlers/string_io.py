"""INS and OUTS, with REP: a bounded number of elements at each dispatch, restartable between any two.

Neither address size nor segment is known on every CPU, so the instruction's prefixes are read (AMD APM vol. 3, INS, OUTS). Registers
are written after each element, as the CPU does it, so that a fault in the middle shows the state the guest expects.
"""
from typing import Annotated, Final

from hypervisor import board, guest_code, inject
from hypervisor.addresses import Gpa, Hva
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.defs.cr import GP, PF
from hypervisor.arch_x86.state import CS, DS, ES, FS, GS, SS, GuestState
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.devices import platform
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import address, array, struct, u8, u32, u64, wrap_u64
from hypervisor.memory import guest_memory, guest_paging
from hypervisor.memory.guest_paging import PagingMode, Translation
from hypervisor.model import Vcpu
from hypervisor.status import Status

MOST_ELEMENTS: Final = 8  # at each dispatch: each may be a newline, which shows a line on the operator's console
RFLAGS_DF: Final[u64] = 1 << 10
CS_DEFAULT_32: Final[u32] = 1 << 14
CR0_PE: Final[u64] = 1
PREFIX_ADDRESS_SIZE: Final = 0x67
LOW_32: Final[u64] = 0xFFFF_FFFF
ALL_ONES: Final = 0xFFFF_FFFF
NOWHERE: Final[u64] = 0xFFFF_FFFF_FFFF_F000  # a hole in every VM: reads ones, drops writes


@struct
class StringAccess:
    """What the prefixes say."""

    segment: u32  # of the memory operand (OUTS); INS has ES always
    address_mask: u64  # of RSI, RDI and RCX
    long_mode: bool


def segment_of(prefix: u32, before: u32) -> u32:
    """The segment that an override prefix names; others leave it."""
    match prefix:
        case 0x26:
            return ES
        case 0x2E:
            return CS
        case 0x36:
            return SS
        case 0x3E:
            return DS
        case 0x64:
            return FS
        case 0x65:
            return GS
        case _:
            return before


def read_prefixes(vcpu: Vcpu, state: GuestState, to: StringAccess) -> bool:
    """Decode what stands before the opcode; False: it cannot be read any more."""
    code: Annotated[list[u8], 16] = array(u8, 16)
    count = guest_code.fetch(vcpu, Hva(address(code)))
    to.long_mode = guest_code.is_long(state)
    to.segment = DS
    wide = to.long_mode or state.segments[CS].attributes & CS_DEFAULT_32 != 0
    narrow: u64 = LOW_32 if to.long_mode else (0xFFFF if wide else LOW_32)
    to.address_mask = 0xFFFF_FFFF_FFFF_FFFF if to.long_mode else (LOW_32 if wide else 0xFFFF)
    for index in range(count):
        byte: u32 = code[index]
        if 0x6C <= byte <= 0x6F:
            return True
        if byte == PREFIX_ADDRESS_SIZE:
            to.address_mask = narrow
        to.segment = segment_of(byte, to.segment)
    return False


def linear_address(state: GuestState, access: StringAccess, segment: u32, offset: u64) -> u64:
    """Base and offset; in long mode only FS and GS have a base."""
    place = offset & access.address_mask
    if access.long_mode:
        return wrap_u64(place + state.segments[segment].base) if segment in (FS, GS) else place
    return wrap_u64(place + state.segments[segment].base) & LOW_32


def locate(vcpu: Vcpu, state: GuestState, linear: u64, write: bool, found: Translation) -> Status:
    """The guest-physical address of one byte; raises #PF or #GP in the guest and answers NOT_FOUND."""
    vm = vcpu.vm
    assert vm is not None
    mode = PagingMode()
    mode.cr0 = state.cr0
    mode.cr3 = state.cr3
    mode.cr4 = state.cr4
    mode.efer = state.efer
    mode.rflags = vcpu.regs.rflags
    access: u32 = guest_paging.ACCESS_WRITE if write else guest_paging.ACCESS_READ
    if backend.cpl(vcpu) == 3:
        access = access | guest_paging.ACCESS_USER
    status = guest_paging.translate(vm, mode, linear, access, found)
    if status == Status.NOT_FOUND:
        backend.set_cr2(vcpu, linear)
        inject.exception_with_error(vcpu, PF, found.error_code)
    elif status == Status.BAD_ARGUMENT:
        inject.exception_with_error(vcpu, GP, 0)
        status = Status.NOT_FOUND
    return status


def move(vcpu: Vcpu, exit: VmExit, state: GuestState, access: StringAccess) -> Status:
    """One element, all of it or nothing. WAIT: memory is not there; NOT_FOUND: an exception was raised."""
    vm = vcpu.vm
    assert vm is not None
    segment: u32 = ES if exit.is_in else access.segment
    offset: u64 = vcpu.regs.rdi if exit.is_in else vcpu.regs.rsi
    pieces: Annotated[list[u64], 4] = array(u64, 4)
    found = Translation()
    for index in range(exit.size):
        linear = linear_address(state, access, segment, wrap_u64(offset + index))
        status = locate(vcpu, state, linear, exit.is_in, found)
        if status == Status.OK:
            status = guest_memory.pin(vcpu, found.gpa, 1, exit.is_in)
        if status in (Status.WAIT, Status.NOT_FOUND, Status.NO_MEMORY):
            return status
        pieces[index] = u64(found.gpa) if status == Status.OK else NOWHERE
    value: u32 = 0
    if exit.is_in:
        value = port_in(vcpu, exit)
        for index in range(exit.size):
            guest_memory.write_u8(vm, Gpa(pieces[index]), u8(value >> (8 * index & 31) & 0xFF))
    else:
        for index in range(exit.size):
            value = u32(value | guest_memory.read_u8(vm, Gpa(pieces[index])) << (8 * index & 31))
        port_out(vcpu, exit, value)
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


def step(vcpu: Vcpu, exit: VmExit, access: StringAccess) -> None:
    """Count one element: RSI or RDI by the direction flag, RCX with REP. A 32-bit address clears the upper half."""
    regs = vcpu.regs
    amount: u64 = wrap_u64(0 - exit.size) if regs.rflags & RFLAGS_DF else exit.size
    if exit.is_in:
        regs.rdi = counted(regs.rdi, amount, access.address_mask)
    else:
        regs.rsi = counted(regs.rsi, amount, access.address_mask)
    if exit.is_rep:
        regs.rcx = counted(regs.rcx, 0xFFFF_FFFF_FFFF_FFFF, access.address_mask)


def counted(register: u64, amount: u64, mask: u64) -> u64:
    """A register after an addition of the instruction's address size."""
    changed = wrap_u64(register + amount) & mask
    if mask == 0xFFFF:
        return register & 0xFFFF_FFFF_FFFF_0000 | changed
    return changed


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Up to MOST_ELEMENTS; the instruction is executed again for the rest."""
    vm = vcpu.vm
    assert vm is not None
    state = GuestState()
    access = StringAccess()
    backend.read_state(vcpu, state)
    if not read_prefixes(vcpu, state, access):
        return Outcome.RESUME
    for _ in range(MOST_ELEMENTS):
        if exit.is_rep and vcpu.regs.rcx & access.address_mask == 0:
            return Outcome.SKIP
        status = move(vcpu, exit, state, access)
        if status == Status.WAIT:
            return Outcome.WAIT
        if status == Status.NOT_FOUND:
            return Outcome.RESUME
        if status != Status.OK:
            return Outcome.STOP
        step(vcpu, exit, access)
        p = vm.platform
        if p is not None and p.effects != 0:
            outcome = board.carry_out(vcpu, vm, p)
            if outcome != Outcome.SKIP:
                return outcome
        if not exit.is_rep:
            return Outcome.SKIP
    return Outcome.RESUME
