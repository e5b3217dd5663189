"""Instructions that have touched a device before, so that they need not be fetched, walked for and decoded each time.

A vCPU keeps the latest few. One is used again only if everything that was looked at when it was learned is as it was: RIP, paging
and code mode, each entry of the guest's page tables on the way to the code, and the code's bytes, which are compared in the
guest's memory; the frames of both are the same while nothing was unmapped from the VM (Vm.epoch). So a guest may change
its code and tables as it likes. Only plain moves of 32 and 64 bits between a register or number and an aligned place are kept.
"""
from __future__ import annotations

from typing import Final

from hypervisor import guest_code, mmio_devices
from hypervisor.addresses import PAGE_MASK, PAGE_SIZE, Gpa, Hva
from hypervisor.arch_x86 import backend, registers
from hypervisor.arch_x86.decoder import decode
from hypervisor.arch_x86.decoder.instruction import NO_REGISTER, NO_SEGMENT, Instruction, size_mask
from hypervisor.arch_x86.decoder.mmio import Access, Operation, describe
from hypervisor.arch_x86.intrinsics import clac, load_u32, load_u64, stac
from hypervisor.arch_x86.state import GuestState
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.lang import address, offsetof, u32, u64, wrap_u64
from hypervisor.memory import guest_memory, guest_paging, guest_window
from hypervisor.memory.guest_paging import PagingMode, Translation
from hypervisor.mmio_instruction import KNOWN, KnownInstruction
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status

RSP: Final = 4
RBP: Final = 5


def carry_out(vcpu: Vcpu, vm: Vm, exit: VmExit) -> bool:
    """Do what the instruction at RIP does at the device's address exit.gpa, and say how long it is. False: it is not known, nothing is done."""
    rip = vcpu.regs.rip
    for known in vcpu.known_instructions:
        if known.rip == rip and known.length != 0 and known.epoch == vm.epoch and is_as_it_was(vcpu, known):
            if not is_at(vcpu, known, exit.gpa):
                return False
            move(vcpu, known, exit.gpa)
            exit.length = known.length
            return True
    return False


def is_as_it_was(vcpu: Vcpu, known: KnownInstruction) -> bool:
    """Mode, tables and bytes, all of them in one window."""
    if not backend.has_code_key(vcpu, known.key):
        return False
    stac()
    differs: u64 = (load_u64(known.code) & known.mask_low ^ known.bytes_low) | (load_u64(known.code_high) & known.mask_high ^ known.bytes_high)
    for step in known.steps:
        place = step.place
        if place == 0:
            break
        differs |= (load_u32(place) if known.narrow else load_u64(place)) ^ step.entry
    clac()
    return differs == 0


def is_at(vcpu: Vcpu, known: KnownInstruction, gpa: u64) -> bool:
    """Whether the operand begins at the address that faulted, and is aligned: else it began in the page before."""
    regs = vcpu.regs
    offset: u64 = known.displacement if known.flat else wrap_u64(known.displacement + known.key.data_base)
    if known.base != NO_REGISTER:
        offset = wrap_u64(offset + registers.get(regs, known.base))
    if known.index != NO_REGISTER:
        offset = wrap_u64(offset + wrap_u64(registers.get(regs, known.index) << (known.scale & 3)))
    if known.rip_relative:
        offset = wrap_u64(offset + regs.rip + known.length)
    return (offset ^ gpa) & PAGE_MASK == 0 and gpa & (known.width - 1) == 0


def move(vcpu: Vcpu, known: KnownInstruction, gpa: u64) -> None:
    """The access itself."""
    if known.to_register:
        registers.put(vcpu.regs, known.register, mmio_devices.read(vcpu, gpa, known.width), known.width)
        return
    value = known.immediate if known.register == NO_REGISTER else registers.get(vcpu.regs, known.register)
    mmio_devices.write(vcpu, gpa, known.width, value & size_mask(known.width))


def learn(vcpu: Vcpu, vm: Vm) -> None:
    """Keep the instruction at RIP, which has just been carried out at a device, if it is one of those that can be kept."""
    found = Translation()
    state = GuestState()
    mode = PagingMode()
    backend.read_state(vcpu, state)
    guest_code.paging_mode(vcpu, state, mode)
    linear = guest_code.linear_rip(vcpu, state)
    access: u32 = guest_paging.ACCESS_FETCH | (guest_paging.ACCESS_USER if backend.cpl(vcpu) == 3 else 0)
    if guest_paging.translate(vm, mode, linear, access, found) != Status.OK or (found.gpa & PAGE_MASK) + 8 > PAGE_SIZE:
        return
    room: u32 = 8 if (found.gpa & PAGE_MASK) + 16 > PAGE_SIZE else 16
    known = vcpu.known_instructions[vcpu.known_next & (KNOWN - 1)]
    known.length = 0
    known.code = guest_memory.host_address(vm, found.gpa) if guest_memory.in_ram(vm, found.gpa, room) else Hva(0)
    known.code_high = Hva(known.code + room - 8)
    if known.code == 0 or not keep_walk(vm, known):
        return
    if keep_instruction(known, guest_code.bits(state)):
        known.rip = vcpu.regs.rip
        known.epoch = vm.epoch
        backend.code_key(vcpu, known.key)
        vcpu.known_next = (vcpu.known_next + 1) & (KNOWN - 1)


def keep_walk(vm: Vm, known: KnownInstruction) -> bool:
    """The page-table entries that the latest walk has read."""
    walk = guest_paging.walk
    known.narrow = walk.narrow
    for level in range(len(known.steps)):
        step = known.steps[level]
        step.place = Hva(0)
        if level < walk.depth:
            step.place = guest_memory.host_address(vm, Gpa(walk.places[level]))
            step.entry = walk.entries[level]
            if step.place == 0:
                return False
    return True


def keep_instruction(known: KnownInstruction, bits: u32) -> bool:
    """Fetch its bytes once, decode the copy; False: it is not one to keep."""
    code = Instruction()
    access = Access()
    known.bytes_low = guest_window.load_u64(known.code)
    known.bytes_high = guest_window.load_u64(known.code_high)
    fetched: u32 = 8 if known.code_high == known.code else 15
    if not decode.decode(Hva(address(known) + offsetof(KnownInstruction, "bytes_low")), fetched, bits, code) or not describe(code, access):
        return False
    if access.operation != Operation.MOV or access.width not in (4, 8) or access.register_width != access.width or access.high_byte:
        return False
    if RSP in (access.register, code.base) or code.segment != NO_SEGMENT or code.address_size == 2 or code.lock:
        return False
    if bits != 64 and code.base == RBP:
        return False
    known.flat = bits == 64
    known.base = code.base
    known.index = code.index
    known.scale = code.scale
    known.rip_relative = code.rip_relative
    known.displacement = code.displacement
    known.register = access.register
    known.width = access.width
    known.to_register = access.to_register
    known.immediate = code.immediate
    known.mask_low = size_mask(min(code.length, 8))
    known.mask_high = size_mask(code.length - 8) if code.length > 8 else 0
    known.bytes_low = known.bytes_low & known.mask_low
    known.bytes_high = known.bytes_high & known.mask_high
    known.length = code.length
    return True

