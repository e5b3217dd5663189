"""Where a VM has nothing: PV guests are stopped, stock systems read ones and write into nothing."""
from __future__ import annotations

from typing import Iterator

import pytest

from hypervisor import crash, guest_code
from hypervisor.abi import VM_KIND_LINUX, VM_KIND_PV
from hypervisor.addresses import PAGE_SIZE, Gfn, Hva
from hypervisor.arch_x86.instruction_store import store_length
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers import nested_fault
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import address, array, u8
from hypervisor.memory import backing, ledger, nested, nested_walk
from hypervisor.memory.ledger import Kind
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status
from tests.memory.world import World, vcpu_of

# Encodings as nasm writes them: (bytes, in 64-bit mode).
STORES = [
    ("88 07", True), ("48 89 07", True), ("48 89 44 24 08", True), ("89 84 8b 00 10 00 00", True), ("89 05 00 01 00 00", True),
    ("c6 07 12", True), ("66 c7 07 34 12", True), ("c7 07 78 56 34 12", True), ("48 c7 47 10 ff ff ff ff", True),
    ("48 a3 00 00 e0 fe 00 00 00 00", True), ("67 a3 00 00 e0 fe", True), ("0f c3 07", True), ("66 0f 7f 44 24 10", True),
    ("f3 0f 7f 07", True), ("44 88 3c 25 00 80 0b 00", True), ("65 48 89 04 25 00 00 00 00", True),
    ("a3 00 00 e0 fe", False), ("89 07", False), ("66 89 47 02", False), ("c7 05 00 00 e0 fe 01 00 00 00", False),
]
OTHERS = [("48 8b 07", True), ("88 c0", True), ("f0 48 01 07", True), ("f3 aa", True), ("0f 10 07", True), ("67 89 07", False),
          ("", True), ("66", True), ("48", True), ("89", True)]


def length_of(text: str, long_mode: bool, cut: int = 0, behind: str = "") -> int:
    code = bytes.fromhex(text)
    room: list[int] = array(u8, 16)
    for index, value in enumerate(code + bytes.fromhex(behind)):
        room[index] = value
    return store_length(Hva(address(room)), len(code) + len(bytes.fromhex(behind)) - cut, long_mode)


@pytest.mark.parametrize("text, long_mode", STORES)
def test_stores_have_their_length(text: str, long_mode: bool) -> None:
    size = len(bytes.fromhex(text))
    assert length_of(text, long_mode) == size
    assert length_of(text, long_mode, behind="90 90 cc") == size
    assert length_of(text, long_mode, cut=1) == 0


@pytest.mark.parametrize("text, long_mode", OTHERS)
def test_others_are_not_guessed(text: str, long_mode: bool) -> None:
    assert length_of(text, long_mode) == 0


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


@pytest.mark.parametrize("gpa", [100 * PAGE_SIZE, 0xFEE0_0000, (1 << 48) - 1, 1 << 48, (1 << 52) - 1])
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


def test_a_stock_systems_write_goes_nowhere(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = linux(world)
    code = bytes.fromhex("48 89 07")

    def fetch(vcpu: Vcpu, target: Hva) -> int:
        from hypervisor.lang import write_memory
        write_memory(target, 3, int.from_bytes(code, "little"))
        return 3

    monkeypatch.setattr(guest_code, "fetch", fetch)
    monkeypatch.setattr(guest_code, "runs_long", lambda vcpu: True)
    assert fault(vcpu_of(vm), 0xFED0_0010) == Outcome.RESUME
    assert fault(vcpu_of(vm), 0xFED0_0010, write=True) == Outcome.SKIP
    assert vcpu_of(vm).exit.length == 3
    assert world.bytes_of(vm, 0xFED00) == b"\xff" * PAGE_SIZE
    code = bytes.fromhex("f3 aa 90")
    assert fault(vcpu_of(vm), 0xFED0_0010, write=True) == Outcome.STOP


def test_looking_everywhere_has_an_end(world: World) -> None:
    vm = linux(world)
    outcome = Outcome.RESUME
    for number in range(1, 100):
        outcome = fault(vcpu_of(vm), number << 30)
        if outcome != Outcome.RESUME:
            break
    assert outcome == Outcome.STOP and "too many" in world.reasons[0]  # type: ignore[attr-defined]
    assert vm.nested_frames == nested.table_quota(vm)
