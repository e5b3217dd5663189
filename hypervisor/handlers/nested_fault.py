"""Nested page fault (SVM #VMEXIT_NPF, VT-x EPT violation): the guest touched a guest-physical page that it may not use so."""
from __future__ import annotations

from hypervisor import crash, guest_code, mmio_devices, mmio_emulation, mmio_known, text
from hypervisor.abi import VM_KIND_PV
from hypervisor.addresses import PAGE_SHIFT, Gfn
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.decoder.instruction import Instruction
from hypervisor.arch_x86.decoder.mmio import Access, Operation, describe
from hypervisor.arch_x86.state import GuestState
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.memory import backing, holes
from hypervisor.memory.nested_walk import GFN_LIMIT
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """RAM is backed with a zeroed frame (a stock system's: and what is around it) and the instruction runs again; anything else is a hole."""
    vm = vcpu.vm
    assert vm is not None
    if exit.gpa >= mmio_devices.FIRST and is_device(vm, exit):
        return touch_device(vm, vcpu, exit)
    status = backing.back_for(vcpu, vm, Gfn(exit.gpa >> PAGE_SHIFT))
    if status == Status.OK:
        if vm.kind != VM_KIND_PV:
            backing.back_around(vm, Gfn(exit.gpa >> PAGE_SHIFT))
        return Outcome.RESUME
    if status == Status.WAIT:
        return Outcome.WAIT
    if status == Status.NO_MEMORY:
        crash.stop(vcpu, exit, f"no frame for {exit.gpa:#x}: nobody gave memory back in time")
        return Outcome.STOP
    if is_device(vm, exit):  # whose page the guest has put below FIRST
        return touch_device(vm, vcpu, exit)
    return touch_hole(vm, vcpu, exit)


def is_device(vm: Vm, exit: VmExit) -> bool:
    """Whether data of a device's page were touched."""
    return not exit.is_fetch and not exit.in_page_walk and mmio_devices.is_device(vm, exit.gpa)


def touch_device(vm: Vm, vcpu: Vcpu, exit: VmExit) -> Outcome:
    """A register of a memory-mapped device."""
    if vcpu.reinject == 0 and mmio_known.carry_out(vcpu, vm, exit):
        return Outcome.SKIP
    outcome = emulate(vcpu, exit)
    if outcome == Outcome.SKIP:
        mmio_known.learn(vcpu, vm)
    return outcome


def touch_hole(vm: Vm, vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Not RAM. A PV guest knows its memory: it is stopped. A stock system probes: reads give ones, writes are dropped.

    A page of ones serves the reads from then on, as long as the VM's quota of tables lasts; everything else is emulated.
    """
    gfn = Gfn(exit.gpa >> PAGE_SHIFT)
    if vm.kind == VM_KIND_PV or exit.is_fetch or exit.in_page_walk:
        vm.holes_touched += 1
        unit = text.size_unit(vm.memory_bytes)
        crash.stop(vcpu, exit, f"touched {exit.gpa:#x}, beyond its {text.size(vm.memory_bytes)} {unit},")
        return Outcome.STOP
    if not exit.is_write and gfn < GFN_LIMIT and holes.show_ones(vm, gfn) != Status.NO_MEMORY:
        vm.holes_touched += 1
        return Outcome.RESUME
    return emulate(vcpu, exit)


def emulate(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Carry out the instruction; one that is not known stops the VM, and the dump names its bytes."""
    if vcpu.reinject != 0:
        crash.stop(vcpu, exit, f"touched {exit.gpa:#x}, where nothing is, while an event was delivered")
        return Outcome.STOP
    state = GuestState()
    code = Instruction()
    access = Access()
    backend.read_state(vcpu, state)
    known: bool = guest_code.decode_at_rip(vcpu, state, code) and describe(code, access)
    if not known or access.operation in (Operation.INS, Operation.OUTS):  # these exit by their port, before memory
        crash.stop(vcpu, exit, f"touched {exit.gpa:#x}, where nothing is, with an instruction not decoded")
        return Outcome.STOP
    exit.length = code.length
    outcome = mmio_emulation.run(vcpu, state, code, access)
    if outcome == Outcome.STOP:
        crash.stop(vcpu, exit, "no frame for an operand: nobody gave memory back in time")
    return outcome
