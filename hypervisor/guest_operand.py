"""Operands of a guest's instruction in its memory: found through its segments and tables, pinned, read and written.

What is no RAM and no device (mmio_devices.py) reads ones and drops writes; each such access is counted in Vm.holes_touched. Segment limits and rights are not
looked at: the CPU has done so before the exit.
"""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor import inject, mmio_devices
from hypervisor.addresses import PAGE_MASK, PAGE_SIZE, Gpa
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.decoder.instruction import size_mask
from hypervisor.arch_x86.defs.cr import GP, PF
from hypervisor.arch_x86.state import FS, GS, GuestState
from hypervisor.guest_code import is_long, paging_mode
from hypervisor.lang import struct, u8, u32, u64, wrap_u64
from hypervisor.memory import guest_memory, guest_paging
from hypervisor.memory.guest_paging import PagingMode, Translation
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status

SIZE_MOST: Final = 8
NOWHERE: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF
LOW_32: Final[u64] = 0xFFFF_FFFF


@struct
class Operand:
    """One operand of up to SIZE_MOST bytes."""

    base: u64  # of its segment
    offset: u64
    offset_mask: u64
    linear_mask: u64
    size: u32
    bytes: Annotated[list[u64], 8]  # guest-physical addresses; NOWHERE: not RAM
    in_hole: bool  # some of it is not RAM
    device: Gpa  # of its first byte, if all of it is one device's
    in_device: bool


def place(operand: Operand, state: GuestState, segment: u32, offset: u64, address_size: u32) -> None:
    """Say where it is; in long mode only FS and GS have a base."""
    operand.offset = offset
    operand.offset_mask = size_mask(address_size)
    if is_long(state):
        operand.base = state.segments[segment].base if segment in (FS, GS) else 0
        operand.linear_mask = NOWHERE
    else:
        operand.base = state.segments[segment].base
        operand.linear_mask = LOW_32


def find(vcpu: Vcpu, state: GuestState, operand: Operand, size: u32, write: bool) -> Status:
    """Translate and pin every byte. OK; WAIT, NO_MEMORY: as guest_memory.pin; NOT_FOUND: an exception was raised in the guest."""
    vm = vcpu.vm
    assert vm is not None
    found = Translation()
    before: u64 = 0
    status = Status.OK
    operand.size = size
    operand.in_hole = False
    operand.in_device = False
    for index in range(size):
        offset = wrap_u64(operand.offset + index) & operand.offset_mask
        linear = wrap_u64(operand.base + offset) & operand.linear_mask
        if index == 0 or linear & PAGE_MASK == 0 or linear != wrap_u64(before + 1):
            status = locate(vcpu, state, linear, write, found)
            if status == Status.OK and guest_memory.in_ram(vm, found.gpa, 1):
                status = guest_memory.pin(vcpu, found.gpa, 1, write)
            elif status == Status.OK:
                status = Status.BAD_ADDRESS
            if status in (Status.WAIT, Status.NOT_FOUND, Status.NO_MEMORY):
                return status
        else:
            found.gpa = Gpa(found.gpa + 1)
        before = linear
        operand.bytes[index] = u64(found.gpa) if status == Status.OK else NOWHERE
        operand.in_hole = operand.in_hole or status != Status.OK
        if index == 0 and status == Status.BAD_ADDRESS:
            operand.device = found.gpa
            operand.in_device = (found.gpa & PAGE_MASK) + size <= PAGE_SIZE and mmio_devices.is_device(vm, found.gpa)
    return Status.OK


def locate(vcpu: Vcpu, state: GuestState, linear: u64, write: bool, found: Translation) -> Status:
    """The guest-physical address of one byte; raises #PF or #GP in the guest and answers NOT_FOUND."""
    vm = vcpu.vm
    assert vm is not None
    mode = PagingMode()
    paging_mode(vcpu, state, mode)
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


def load(vcpu: Vcpu, operand: Operand) -> u64:
    """Read what `find` found."""
    if operand.in_device:
        return mmio_devices.read(vcpu, operand.device, operand.size)
    vm = vcpu.vm
    assert vm is not None
    value: u64 = 0
    for index in range(operand.size):
        byte: u64 = 0xFF
        if operand.bytes[index] != NOWHERE:
            byte = guest_memory.read_u8(vm, Gpa(operand.bytes[index]))
        value |= byte << ((8 * index) & 63)
    if operand.in_hole:
        vm.holes_touched += 1
    return value


def store(vcpu: Vcpu, operand: Operand, value: u64) -> None:
    """Write what `find` found; each byte that is RAM has been pinned for this exit."""
    if operand.in_device:
        mmio_devices.write(vcpu, operand.device, operand.size, value)
        return
    vm = vcpu.vm
    assert vm is not None
    for index in range(operand.size):
        if operand.bytes[index] != NOWHERE:
            status = guest_memory.write_u8(vm, Gpa(operand.bytes[index]), u8((value >> ((8 * index) & 63)) & 0xFF))
            assert status == Status.OK, "the page was pinned"
    if operand.in_hole:
        vm.holes_touched += 1


def counted(register: u64, amount: u64, address_size: u32) -> u64:
    """A register after an addition of the instruction's address size; 32 bits clear the upper half."""
    mask = size_mask(address_size)
    changed = wrap_u64(register + amount) & mask
    return register & ~mask | changed if address_size == 2 else changed
