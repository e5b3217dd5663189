"""Nested page fault (SVM #VMEXIT_NPF, VT-x EPT violation): the guest touched a guest-physical page that it may not use so."""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor import crash, guest_code
from hypervisor.abi import VM_KIND_PV
from hypervisor.addresses import PAGE_SHIFT, Gfn, Hva
from hypervisor.arch_x86.instruction_store import store_length
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import address, array, u8
from hypervisor.memory import backing, holes
from hypervisor.memory.nested_walk import GFN_LIMIT
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status

CODE_BYTES: Final = 16


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """RAM is backed with a zeroed frame and the instruction runs again; anything else is a hole."""
    vm = vcpu.vm
    assert vm is not None
    status = backing.back_for(vcpu, vm, Gfn(exit.gpa >> PAGE_SHIFT))
    if status == Status.OK:
        return Outcome.RESUME
    if status == Status.WAIT:
        return Outcome.WAIT
    if status == Status.NO_MEMORY:
        crash.stop(vcpu, exit, f"no frame for {exit.gpa:#x}: nobody gave memory back in time")
        return Outcome.STOP
    return touch_hole(vm, vcpu, exit)


def touch_hole(vm: Vm, vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Not RAM. A PV guest knows its memory: it is stopped. A stock system probes: reads give ones, writes are dropped."""
    vm.holes_touched += 1
    gfn = Gfn(exit.gpa >> PAGE_SHIFT)
    if vm.kind == VM_KIND_PV or exit.is_fetch or exit.in_page_walk or gfn >= GFN_LIMIT:
        crash.stop(vcpu, exit, f"touched {exit.gpa:#x}, beyond its {vm.memory_bytes >> 20} MiB,")
        return Outcome.STOP
    if exit.is_write:
        return drop_write(vcpu, exit)
    if holes.show_ones(vm, gfn) == Status.NO_MEMORY:
        crash.stop(vcpu, exit, f"touched {exit.gpa:#x}: too many places where nothing is")
        return Outcome.STOP
    return Outcome.RESUME


def drop_write(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """Step over a store."""
    code: Annotated[list[u8], CODE_BYTES] = array(u8, CODE_BYTES)
    place = Hva(address(code))
    count = guest_code.fetch(vcpu, place)
    exit.length = store_length(place, count, guest_code.runs_long(vcpu))
    if exit.length == 0:
        crash.stop(vcpu, exit, f"wrote to {exit.gpa:#x}, where nothing is, with an instruction not decoded")
        return Outcome.STOP
    return Outcome.SKIP
