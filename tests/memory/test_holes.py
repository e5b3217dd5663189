"""Where a VM has nothing: PV guests are stopped, stock systems read ones and write into nothing."""
from __future__ import annotations

from typing import Iterator

import pytest

from hypervisor import crash
from hypervisor.abi import VM_KIND_LINUX, VM_KIND_PV
from hypervisor.addresses import PAGE_SIZE, Gfn
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers import nested_fault
from hypervisor.handlers.outcome import Outcome
from hypervisor.memory import backing, ledger, nested, nested_walk
from hypervisor.memory.ledger import Kind
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status
from tests.memory.world import World, vcpu_of

@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(600)
    reasons: list[str] = []
    monkeypatch.setattr(crash, "stop", lambda vcpu, exit, cause: reasons.append(cause))
    made.reasons = reasons  # type: ignore[attr-defined]
    yield made
    made.check()
    made.close()


def fault(vcpu: Vcpu, gpa: int, write: bool = False, fetch: bool = False) -> Outcome:
    exit = VmExit()
    exit.gpa, exit.is_write, exit.is_fetch = gpa, write, fetch
    outcome = nested_fault.handle(vcpu, exit)
    vcpu.exit.length = exit.length
    return outcome


def linux(world: World) -> Vm:
    vm = world.vm(100)
    vm.kind = VM_KIND_LINUX
    return vm


def test_ram_is_backed(world: World) -> None:
    vm = world.vm(100)
    vm.kind = VM_KIND_PV
    assert fault(vcpu_of(vm), 99 * PAGE_SIZE + 4095, write=True) == Outcome.RESUME
    assert world.bytes_of(vm, 99) == bytes(PAGE_SIZE)
    assert fault(vcpu_of(vm), 99 * PAGE_SIZE) == Outcome.RESUME  # it came again: another vCPU was faster


@pytest.mark.parametrize("gpa", [100 * PAGE_SIZE, 0xFEB0_0000, (1 << 48) - 1, 1 << 48, (1 << 52) - 1])
def test_a_pv_guest_is_stopped(world: World, gpa: int) -> None:
    vm = world.vm(100)
    vm.kind = VM_KIND_PV
    assert fault(vcpu_of(vm), gpa) == Outcome.STOP
    assert f"{gpa:#x}" in world.reasons[0] and vm.holes_touched == 1  # type: ignore[attr-defined]


def test_a_stock_system_reads_ones(world: World) -> None:
    one, other = linux(world), linux(world)
    for vm in (one, other):
        assert fault(vcpu_of(vm), 0xFED0_0010) == Outcome.RESUME
        assert world.bytes_of(vm, 0xFED00) == b"\xff" * PAGE_SIZE
        assert nested_walk.leaf(vm.nested_root, Gfn(0xFED00)) & nested_walk.entry_format.write_bit == 0
    world.check()
    assert ledger.book.counts[Kind.SHARED] == 1
    assert backing.back(one, Gfn(0xFED00)) == Status.BAD_ADDRESS
    nested.destroy(one)
    world.check()


def test_looking_everywhere_has_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the VM's quota of tables is used up, reads are emulated one by one."""
    vm = linux(world)
    emulated: list[int] = []

    def emulate(vcpu: Vcpu, exit: VmExit) -> Outcome:
        emulated.append(exit.gpa)
        return Outcome.SKIP

    monkeypatch.setattr(nested_fault, "emulate", emulate)
    outcomes = [fault(vcpu_of(vm), number << 30) for number in range(1, 100)]
    first = outcomes.index(Outcome.SKIP)
    assert set(outcomes[:first]) == {Outcome.RESUME} and first > 0
    assert outcomes[first:] == [Outcome.SKIP] * (99 - first) and len(emulated) == 99 - first
    assert vm.nested_frames <= nested.table_quota(vm)
