"""An instruction that touched guest-physical space where no RAM is, carried out in software.

Devices answer (mmio_devices.py); elsewhere reads give ones, writes are dropped and counted; operands that are RAM are read and written. Restartable: registers change
after everything has been pinned. Strings go MOST_ELEMENTS at a time; the instruction then runs again for the rest.
"""
from __future__ import annotations

from typing import Final

from hypervisor import guest_operand
from hypervisor.arch_x86 import backend, registers
from hypervisor.arch_x86.decoder import alu, modrm
from hypervisor.arch_x86.decoder.alu import Values
from hypervisor.arch_x86.decoder.instruction import (ALL_ONES, NO_REGISTER, NO_SEGMENT, Instruction, sign_extended, signed_shift,
                                                     size_mask)
from hypervisor.arch_x86.decoder.mmio import Access, Operation
from hypervisor.arch_x86.state import DS, ES, SS, GuestState
from hypervisor.guest_operand import Operand
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import u32, u64, wrap_u64
from hypervisor.model import Vcpu
from hypervisor.status import Status

MOST_ELEMENTS: Final = 16  # at each dispatch
RFLAGS_DF: Final[u64] = 1 << 10
STACK_32: Final[u32] = 1 << 14  # D/B of SS



def run(vcpu: Vcpu, state: GuestState, code: Instruction, access: Access) -> Outcome:
    """`state` has been read in this exit. SKIP: done; RESUME: an exception was raised, or elements are left; WAIT; STOP: no frame."""
    rsp = vcpu.regs.rsp
    rflags = vcpu.regs.rflags
    outcome: Outcome
    if access.operation in (Operation.MOVS, Operation.STOS, Operation.LODS):
        outcome = strings(vcpu, state, code, access)
    elif access.operation in (Operation.PUSH, Operation.POP):
        outcome = after(stack(vcpu, state, code, access))
    else:
        outcome = after(general(vcpu, state, code, access))
    if outcome in (Outcome.SKIP, Outcome.RESUME) and (rsp != vcpu.regs.rsp or rflags != vcpu.regs.rflags):
        backend.write_state(vcpu, state)
    return outcome


def after(status: Status) -> Outcome:
    """What follows from one access."""
    match status:
        case Status.OK:
            return Outcome.SKIP
        case Status.WAIT:
            return Outcome.WAIT
        case Status.NOT_FOUND:
            return Outcome.RESUME
        case _:
            return Outcome.STOP


def place_operand(vcpu: Vcpu, state: GuestState, code: Instruction, extra: u64, to: Operand) -> None:
    """The operand that ModRM names, `extra` bytes on."""
    regs = vcpu.regs
    offset: u64 = wrap_u64(code.displacement + extra)
    if code.base != NO_REGISTER:
        offset = wrap_u64(offset + registers.get(regs, code.base))
    if code.index != NO_REGISTER:
        offset = wrap_u64(offset + wrap_u64(registers.get(regs, code.index) << (code.scale & 3)))
    if code.rip_relative:
        offset = wrap_u64(offset + regs.rip + code.length)
    segment: u32 = code.segment if code.segment != NO_SEGMENT else modrm.default_segment(code)
    guest_operand.place(to, state, segment, offset & size_mask(code.address_size), code.address_size)


def read_register(vcpu: Vcpu, access: Access) -> u64:
    """The register operand, as wide as it is."""
    value = registers.get(vcpu.regs, access.register)
    return (value >> 8) & 0xFF if access.high_byte else value & size_mask(access.register_width)


def bit_offset(vcpu: Vcpu, access: Access) -> u64:
    """BT with a register reaches beyond its operand."""
    if not Operation.BT <= access.operation <= Operation.BTC or access.register == NO_REGISTER:
        return 0
    number = sign_extended(read_register(vcpu, access), access.width)
    shift: u32 = 4 if access.width == 2 else (5 if access.width == 4 else 6)
    return wrap_u64(signed_shift(number, shift) * access.width)


def general(vcpu: Vcpu, state: GuestState, code: Instruction, access: Access) -> Status:
    """One operand in memory, the other a register or immediate."""
    operand = Operand()
    values = Values()
    writes: bool = not access.to_register and access.operation not in (Operation.CMP, Operation.TEST, Operation.BT)
    place_operand(vcpu, state, code, bit_offset(vcpu, access), operand)
    status = guest_operand.find(vcpu, state, operand, access.width, writes)
    if status != Status.OK:
        return status
    if access.operation != Operation.MOV or access.to_register:
        values.memory = guest_operand.load(vcpu, operand)
    values.operand = code.immediate if access.register == NO_REGISTER else read_register(vcpu, access)
    values.accumulator = vcpu.regs.rax
    values.flags = vcpu.regs.rflags
    alu.apply(access.operation, access.width, access.to_register, values)
    vcpu.regs.rflags = values.flags
    if values.writes_memory:
        guest_operand.store(vcpu, operand, values.memory)
    if values.writes_accumulator:
        registers.put(vcpu.regs, 0, values.accumulator, access.width)
    if values.writes_operand:
        put_register(vcpu, access, values.operand)
    return Status.OK


def put_register(vcpu: Vcpu, access: Access, value: u64) -> None:
    """Write the register operand."""
    if access.high_byte:
        before = registers.get(vcpu.regs, access.register)
        registers.put(vcpu.regs, access.register, before & ~0xFF00 | (value & 0xFF) << 8, 8)
    else:
        registers.put(vcpu.regs, access.register, value, access.register_width)


def stack(vcpu: Vcpu, state: GuestState, code: Instruction, access: Access) -> Status:
    """PUSH and POP: of the two operands, one is on the stack. POP finds its own with RSP as it is afterwards."""
    regs = vcpu.regs
    pushes: bool = access.operation == Operation.PUSH
    memory = Operand()
    top = Operand()
    wide: u32 = 4 if state.segments[SS].attributes & STACK_32 != 0 else 2
    wide = 8 if code.bits == 64 else wide
    before: u64 = regs.rsp
    moved = guest_operand.counted(before, wrap_u64(0 - access.width) if pushes else access.width, wide)
    guest_operand.place(top, state, SS, (moved if pushes else before) & size_mask(wide), wide)
    regs.rsp = before if pushes else moved
    place_operand(vcpu, state, code, 0, memory)
    regs.rsp = before
    status = guest_operand.find(vcpu, state, memory, access.width, not pushes)
    if status == Status.OK:
        status = guest_operand.find(vcpu, state, top, access.width, pushes)
    if status != Status.OK:
        return status
    if pushes:
        guest_operand.store(vcpu, top, guest_operand.load(vcpu, memory))
    else:
        guest_operand.store(vcpu, memory, guest_operand.load(vcpu, top))
    regs.rsp = moved
    return Status.OK


def strings(vcpu: Vcpu, state: GuestState, code: Instruction, access: Access) -> Outcome:
    """MOVS, STOS, LODS; registers count after each element."""
    regs = vcpu.regs
    amount: u64 = wrap_u64(0 - access.width) if regs.rflags & RFLAGS_DF != 0 else access.width
    source = Operand()
    target = Operand()
    for _ in range(MOST_ELEMENTS):
        if access.repeat and regs.rcx & size_mask(code.address_size) == 0:
            return Outcome.SKIP
        status = element(vcpu, state, code, access, source, target)
        if status != Status.OK:
            return after(status)
        if access.operation != Operation.STOS:
            regs.rsi = guest_operand.counted(regs.rsi, amount, code.address_size)
        if access.operation != Operation.LODS:
            regs.rdi = guest_operand.counted(regs.rdi, amount, code.address_size)
        if not access.repeat:
            return Outcome.SKIP
        regs.rcx = guest_operand.counted(regs.rcx, ALL_ONES, code.address_size)
    return Outcome.RESUME


def element(vcpu: Vcpu, state: GuestState, code: Instruction, access: Access, source: Operand, target: Operand) -> Status:
    """One of them, whole or not at all."""
    status = Status.OK
    mask = size_mask(code.address_size)
    if access.operation != Operation.STOS:
        segment: u32 = code.segment if code.segment != NO_SEGMENT else DS
        guest_operand.place(source, state, segment, vcpu.regs.rsi & mask, code.address_size)
        status = guest_operand.find(vcpu, state, source, access.width, False)
    if status == Status.OK and access.operation != Operation.LODS:
        guest_operand.place(target, state, ES, vcpu.regs.rdi & mask, code.address_size)
        status = guest_operand.find(vcpu, state, target, access.width, True)
    if status != Status.OK:
        return status
    value: u64 = vcpu.regs.rax if access.operation == Operation.STOS else guest_operand.load(vcpu, source)
    if access.operation == Operation.LODS:
        put_register(vcpu, access, value)
    else:
        guest_operand.store(vcpu, target, value)
    return Status.OK
