"""Control words: nothing wanted is lost without a word, nothing is forced on us unseen."""
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.vtx import controls
from hypervisor.status import Status

from .conftest import CAPABILITIES


def test_bochs_haswell_has_all() -> None:
    assert controls.choose_all() == Status.OK
    assert list(controls.chosen.words) == [0x7F, 0xB520_6DFA, 0x14EA, 0x7F_EFFF, 0xD1FF]


def test_missing_control_is_named(cpu: list[str]) -> None:
    machine.msrs[0x48B] &= ~(1 << (32 + 7))
    assert controls.choose_all() == Status.UNSUPPORTED
    assert cpu == ["vtx: secondary control bit 7 (unrestricted guest): the CPU lacks it"]


def test_every_missing_control_is_named_in_one_go(cpu: list[str]) -> None:
    machine.msrs[0x48D] &= ~(1 << (32 + 6))
    machine.msrs[0x48F] &= ~(1 << (32 + 22))
    assert controls.choose_all() == Status.UNSUPPORTED
    assert len(cpu) == 2 and "preemption timer" in cpu[0] and "save VMX-preemption timer value" in cpu[1]


def test_forced_control_is_refused_by_name(cpu: list[str]) -> None:
    machine.msrs[0x48E] |= 1 << 15
    assert controls.choose_all() == Status.UNSUPPORTED
    assert cpu == ["vtx: processor control bit 15 (CR3-load exiting): the CPU forces it, Krait does not handle it"]


def test_switch_that_is_stuck_is_refused(cpu: list[str]) -> None:
    machine.msrs[0x48E] |= 1 << 2
    assert controls.choose_all() == Status.UNSUPPORTED
    assert cpu == ["vtx: processor control bit 2 (interrupt-window exiting): the CPU cannot turn it off"]


def test_optional_control_is_dropped_silently(cpu: list[str]) -> None:
    machine.msrs[0x48B] &= ~(1 << (32 + 12))
    assert controls.choose_all() == Status.OK
    assert controls.chosen.words[controls.SECONDARY] & controls.SECONDARY_INVPCID == 0
    assert cpu == []


def test_without_true_msrs_the_older_ones_are_read(cpu: list[str]) -> None:
    """Before the TRUE MSRs, CR3-load and CR3-store exiting could not be turned off."""
    machine.msrs[0x480] &= ~(1 << 55)
    for old, exact in ((0x481, 0x48D), (0x482, 0x48E), (0x483, 0x48F), (0x484, 0x490)):
        machine.msrs[old] = CAPABILITIES[exact]
    machine.msrs[0x482] |= 0x1_8000
    assert controls.choose_all() == Status.UNSUPPORTED
    assert [line.split("(")[1].split(")")[0] for line in cpu] == ["CR3-load exiting", "CR3-store exiting"]


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_chosen_is_what_was_asked_and_allowed(must: int, may: int, wanted: int, optional: int) -> None:
    may |= must
    status = controls.choose(controls.SECONDARY, may << 32 | must, wanted, optional, 0)
    if status == Status.OK:
        word = controls.chosen.words[controls.SECONDARY]
        assert word & ~may == 0 and must & ~word == 0
        assert wanted & ~word == 0
        assert word & ~(wanted | optional) == 0
    else:
        assert wanted & ~may or must & ~(wanted | optional)


def test_names_are_32_a_group() -> None:
    assert len(controls.CONTROL_NAME) == 32 * controls.GROUPS
    for group in range(controls.GROUPS):
        for words in (controls.WANTED, controls.OPTIONAL, controls.SWITCHED):
            for bit in range(32):
                if words[group] >> bit & 1:
                    assert controls.CONTROL_NAME[32 * group + bit], (group, bit)
