"""Each way in which the ledger can be untrue is found, by the full check and by the one in turns."""
from __future__ import annotations

from contextlib import closing
from typing import Callable

import pytest

from hypervisor import clock
from hypervisor.addresses import PAGE_SIZE, Gfn, Gpa, Hfn
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.intrinsics import load_u64, store_u64
from hypervisor.lang import clear
from hypervisor.memory import backing, frames, guest_memory, holes, ledger, ledger_check, nested, nested_walk
from hypervisor.memory.ledger import Kind, Use
from hypervisor.model import Vm
from hypervisor.status import Status
from tests.memory.world import FIRST_FRAME, World


def frame_at(vm: Vm, gfn: int) -> int:
    return guest_memory.host_address(vm, Gpa(gfn * PAGE_SIZE)) >> 12


def leaf(vm: Vm, gfn: int, change: Callable[[int], int]) -> None:
    slot = nested.slot_of(vm, Gfn(gfn))
    store_u64(slot, change(load_u64(slot)))


def mapped_twice(one: Vm, other: Vm) -> None:
    leaf(other, 3, lambda entry: entry & ~nested_walk.FRAME_BITS | frame_at(one, 3) << 12)


def mapped_elsewhere(one: Vm, other: Vm) -> None:
    leaf(one, 9, lambda entry: load_u64(nested.slot_of(one, Gfn(3))))


def not_mapped(one: Vm, other: Vm) -> None:
    leaf(one, 3, lambda entry: 0)


def maps_the_hypervisor(one: Vm, other: Vm) -> None:
    leaf(one, 30, lambda entry: load_u64(nested.slot_of(one, Gfn(3))) & ~nested_walk.FRAME_BITS | one.nested_root)


def maps_a_free_frame(one: Vm, other: Vm) -> None:
    leaf(one, 30, lambda entry: load_u64(nested.slot_of(one, Gfn(3))) & ~nested_walk.FRAME_BITS | ledger.book.first_free << 12)


def writes_shared(one: Vm, other: Vm) -> None:
    assert holes.show_ones(one, Gfn(50)) == Status.OK
    leaf(one, 50, lambda entry: entry | nested_walk.entry_format.write_bit)


def counts_shared(one: Vm, other: Vm) -> None:
    assert holes.show_ones(one, Gfn(50)) == Status.OK
    ledger.share(Hfn(holes.ones.hpa >> 12))


def shares_a_table(one: Vm, other: Vm) -> None:
    store_u64(other.nested_root, load_u64(one.nested_root))


def loses_a_table(one: Vm, other: Vm) -> None:
    one.nested_frames += 1


def counts_private(one: Vm, other: Vm) -> None:
    one.private_frames -= 1


def breaks_the_list(one: Vm, other: Vm) -> None:
    entry = ledger.entry_of(Hfn(ledger.book.first_free))
    ledger.entry_of(Hfn(entry.next)).value = 0x5


def shortens_the_list(one: Vm, other: Vm) -> None:
    ledger.book.first_free = ledger.entry_of(Hfn(ledger.book.first_free)).next


def counts_free(one: Vm, other: Vm) -> None:
    ledger.book.counts[Kind.FREE] += 1


def turns_reserved(one: Vm, other: Vm) -> None:
    ledger.entry_of(Hfn(1)).kind = Kind.HYPERVISOR


def has_no_kind(one: Vm, other: Vm) -> None:
    ledger.entry_of(Hfn(FIRST_FRAME + 399)).kind = 99


def belongs_to_nobody(one: Vm, other: Vm) -> None:
    ledger.entry_of(Hfn(frame_at(one, 3))).vm = 77


def pinned_while_free(one: Vm, other: Vm) -> None:
    ledger.entry_of(Hfn(ledger.book.first_free)).pins = 1


def loses_its_vm(one: Vm, other: Vm) -> None:
    frames.alloc_for(77, Use.NESTED_TABLE)


BREAKS = [mapped_twice, mapped_elsewhere, not_mapped, maps_the_hypervisor, maps_a_free_frame, writes_shared, counts_shared, shares_a_table,
          loses_a_table, counts_private, breaks_the_list, shortens_the_list, counts_free, turns_reserved, has_no_kind, belongs_to_nobody,
          pinned_while_free, loses_its_vm]


@pytest.mark.parametrize("break_it", BREAKS)
def test_what_is_untrue_is_found(break_it: Callable[[Vm, Vm], None], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with closing(World(400)) as world:
        one, other = world.vm(100), world.vm(100)
        for vm in (one, other):
            for gfn in range(10):
                assert backing.back(vm, Gfn(gfn)) == Status.OK
        world.check()
        monkeypatch.setattr(ledger_check, "say", said.append)
        break_it(one, other)
        assert ledger_check.check() > 0
        assert said[0] == "ledger: BROKEN" and said[-1].startswith("ledger: BROKEN, ")
        monkeypatch.setattr(ledger_check, "panic", pytest.fail)
        with pytest.raises(pytest.fail.Exception, match="errors, told above"):
            in_turns(100)


def in_turns(turns: int) -> None:
    clear(ledger_check.progress)
    for _ in range(turns):
        machine.tsc += clock.ticks_of(1_000_000_000)
        ledger_check.in_turn()


def test_turns_do_not_mistake_changes_for_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames change hands between the turns; nothing that was only half counted is an error."""
    monkeypatch.setattr(ledger_check, "panic", pytest.fail)
    with closing(World(400)) as world:
        vm = world.vm(100)
        clear(ledger_check.progress)
        for turn in range(90):
            machine.tsc += clock.ticks_of(1_000_000_000)
            ledger_check.in_turn()
            assert backing.back(vm, Gfn(turn)) == Status.OK
            if turn % 3 == 0:
                nested.unmap(vm, Gfn(turn // 2))
                ledger.settle(10)
        assert ledger_check.progress.rounds > 3


def test_turns_take_a_small_share_of_the_time() -> None:
    with closing(World(400)):
        clear(ledger_check.progress)
        machine.tsc_step = 1000
        ledger_check.in_turn()
        frame = ledger_check.progress.frame
        ledger_check.in_turn()
        assert ledger_check.progress.frame == frame != 0
