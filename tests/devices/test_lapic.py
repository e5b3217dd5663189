"""The local APIC against a model made of sets, and by the cases of the SDM."""
from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hostlib
from host_library import HostLibrary
from hypervisor.devices import lapic, lapic_registers, lapic_timer
from hypervisor.devices.lapic import Lapic, Message
from hypervisor.devices.lapic_registers import RegisterValue
from hypervisor.devices.rate import NEVER
from hypervisor.lang import address, copy, read_memory, sizeof
from tests.three_lives.builds import ROOT
from tests.three_lives.mirror import same, twin
from tests.three_lives.test_scenario import run_sanitized

VECTORS = st.integers(16, 255)
MODULE = "hypervisor.devices.lapic_registers"
OFFSETS = st.one_of(st.sampled_from([0x20, 0x80, 0xB0, 0xD0, 0xE0, 0xF0, 0x280, 0x300, 0x310, 0x320, 0x350, 0x370, 0x380, 0x390, 0x3E0, 0x3F0]),
                    st.integers(0, 0xFFF))
STEPS = st.lists(st.tuples(st.sampled_from("rwRWiatbd"), OFFSETS, st.one_of(st.integers(0, 0x1FF), st.integers(0, (1 << 64) - 1)),
                           st.integers(0, 10**10)), max_size=60)


def enabled(id_: int = 0) -> Lapic:
    """One that takes fixed interrupts."""
    apic = Lapic()
    lapic.reset(apic, id_, True)
    return apic


def take(apic: Lapic) -> int:
    """The vector that the vCPU takes now; 0: none."""
    vector = lapic.pending(apic)
    if vector:
        lapic.acknowledge(apic, vector)
    return vector


@given(st.lists(st.one_of(st.tuples(st.just("accept"), VECTORS), st.tuples(st.just("take"), st.just(0)), st.tuples(st.just("eoi"), st.just(0)),
                          st.tuples(st.just("tpr"), st.integers(0, 255)))))
@settings(max_examples=400, deadline=None)
def test_priorities_are_those_of_the_sdm(steps: list[tuple[str, int]]) -> None:
    """11.8.3: the highest request is taken when its class is above that of TPR and of what is in service; EOI ends the highest."""
    apic = enabled()
    requested: set[int] = set()
    served: list[int] = []
    tpr = 0
    for what, value in steps:
        match what:
            case "accept":
                assert lapic.accept(apic, value, False) == (value not in requested)
                requested.add(value)
            case "take":
                ppr = max(tpr >> 4, max(served, default=0) >> 4)
                best = max(requested, default=0)
                expected = best if best >> 4 > ppr else 0
                assert take(apic) == expected
                if expected:
                    requested.remove(expected)
                    served.append(expected)
            case "eoi":
                lapic.end_of_interrupt(apic)
                if served:
                    served.remove(max(served))
            case _:
                tpr = value
                lapic_registers.write_page(apic, lapic.TPR, value, 0)
        top = max(served, default=0)
        assert lapic_registers.read_page(apic, lapic.PPR, 0) == (top & 0xF0 if top >> 4 > tpr >> 4 else tpr)


def test_only_level_triggered_ends_are_told_to_the_io_apic() -> None:
    apic = enabled()
    for vector, level in ((0x51, True), (0x61, False)):
        lapic.accept(apic, vector, level)
        assert take(apic) == vector
        apic.effects = 0
        lapic_registers.write_page(apic, lapic.EOI, 0, 0)
        assert bool(apic.effects & lapic.EFFECT_EOI) == level
        assert not level or apic.eoi_vector == vector


def test_software_disable_masks_and_refuses() -> None:
    apic = enabled()
    lapic_registers.write_page(apic, lapic.LVT_TIMER, 0x40, 0)
    lapic_registers.write_page(apic, lapic.SVR, 0xFF, 0)
    assert lapic_registers.read_page(apic, lapic.LVT_TIMER, 0) == 0x10040
    lapic_registers.write_page(apic, lapic.LVT_TIMER, 0x41, 0)
    assert lapic_registers.read_page(apic, lapic.LVT_TIMER, 0) == 0x10041
    assert not lapic.accept(apic, 0x40, False) and take(apic) == 0


def message(destination: int, logical: bool = False, wide: bool = False, mode: int = 0, vector: int = 0x40) -> Message:
    made = Message()
    made.destination, made.logical, made.wide, made.mode, made.vector = destination, logical, wide, mode, vector
    return made


def test_destinations() -> None:
    """11.6.2: physical, flat, cluster, x2APIC's cluster, broadcast."""
    apic = enabled(5)
    assert lapic.addressed(apic, message(5)) and lapic.addressed(apic, message(0xFF)) and not lapic.addressed(apic, message(4))
    lapic_registers.write_page(apic, lapic.LDR, 0x20 << 24, 0)
    assert lapic.addressed(apic, message(0x21, True)) and not lapic.addressed(apic, message(0x10, True))
    lapic_registers.write_page(apic, lapic.DFR, 0x0FFFFFFF, 0)
    lapic_registers.write_page(apic, lapic.LDR, 0x34 << 24, 0)
    assert lapic.addressed(apic, message(0x36, True)) and not lapic.addressed(apic, message(0x43, True))
    wide = enabled(37)
    assert lapic.write_base(wide, wide.base | lapic.BASE_EXTENDED)
    assert lapic.addressed(wide, message(2 << 16 | 1 << 5, True, True)) and not lapic.addressed(wide, message(1 << 16 | 1 << 5, True, True))
    assert lapic.addressed(wide, message(0xFFFFFFFF, False, True)) and not lapic.addressed(wide, message(0xFF, False, True))


def test_startup_comes_behind_an_init_only() -> None:
    apic = enabled(1)
    apic.waits_for_startup = False
    assert not lapic.deliver(apic, message(1, mode=lapic.MODE_STARTUP)) and not apic.startup
    assert lapic.deliver(apic, message(1, mode=lapic.MODE_INIT)) and apic.init
    assert lapic.deliver(apic, message(1, mode=lapic.MODE_STARTUP, vector=0x9A)) and (apic.startup, apic.startup_vector) == (True, 0x9A)


def test_base_moves_by_the_transitions_allowed() -> None:
    """11.12.5, figure 11-27."""
    apic = enabled()
    disabled, page, extended = lapic.BASE | lapic.BASE_BSP, apic.base, apic.base | lapic.BASE_EXTENDED
    assert not lapic.write_base(apic, page | 0x1000) and not lapic.write_base(apic, page & ~lapic.BASE_BSP)
    assert not lapic.write_base(apic, disabled | lapic.BASE_EXTENDED)
    assert lapic.write_base(apic, extended) and not lapic.write_base(apic, page)
    assert lapic.write_base(apic, disabled) and not lapic.write_base(apic, extended) and apic.svr == 0xFF
    assert lapic.write_base(apic, page) and lapic.write_base(apic, extended)


def test_errors_are_shown_after_the_next_write() -> None:
    apic = enabled()
    lapic_registers.write_page(apic, lapic.LVT_ERROR, 0xFE, 0)
    assert lapic_registers.read_page(apic, 0x040, 0) == 0  # reserved
    assert lapic_registers.read_page(apic, lapic.ESR, 0) == 0
    lapic_registers.write_page(apic, lapic.ESR, 0, 0)
    assert lapic_registers.read_page(apic, lapic.ESR, 0) == lapic.ERROR_REGISTER and take(apic) == 0xFE
    lapic_registers.write_page(apic, lapic.ICR, 0x0F, 0)
    lapic_registers.write_page(apic, lapic.ESR, 0, 0)
    assert lapic_registers.read_page(apic, lapic.ESR, 0) == lapic.ERROR_SEND_VECTOR and not apic.effects & lapic.EFFECT_IPI


def test_x2apic_refuses_reserved_bits() -> None:
    apic = enabled()
    found = RegisterValue()
    assert not lapic_registers.read_msr(apic, 0x802, 0, found)  # not in x2APIC mode
    assert lapic.write_base(apic, apic.base | lapic.BASE_EXTENDED)
    assert lapic_registers.read_msr(apic, 0x802, 0, found) and found.value == 0
    for msr, value in ((0x802, 0), (0x803, 0), (0x80A, 0), (0x80B, 1), (0x80D, 0), (0x80E, 0), (0x80F, 0x1000), (0x828, 1), (0x830, 0x1000),
                       (0x831, 0), (0x832, 1 << 20), (0x838, 1 << 32), (0x83E, 4), (0x83F, 0x100), (0x840, 0)):
        assert not lapic_registers.write_msr(apic, msr, value, 0), hex(msr)
    for msr in (0x80B, 0x80E, 0x831, 0x83F, 0x840, 0x8FF):
        assert not lapic_registers.read_msr(apic, msr, 0, found), hex(msr)


COUNTS = st.integers(1, 0xFFFFFFFF)


@given(COUNTS, st.sampled_from([0, 1, 2, 3, 8, 9, 10, 11]), st.booleans(), st.integers(0, 1 << 40), st.integers(1, 5))
def test_counts_run_out_in_time(count: int, divide: int, periodic: bool, start: int, periods: int) -> None:
    apic = enabled()
    step = {0: 2, 1: 4, 2: 8, 3: 16, 8: 32, 9: 64, 10: 128, 11: 1}[divide]
    lapic_registers.write_page(apic, lapic.LVT_TIMER, 0x40 | periodic << 17, start)
    lapic_registers.write_page(apic, lapic.TIMER_DIVIDE, divide, start)
    lapic_registers.write_page(apic, lapic.TIMER_INITIAL, count, start)
    due = start + count * step
    assert lapic_timer.next_deadline(apic) == due and lapic_registers.read_page(apic, lapic.TIMER_CURRENT, start) == count
    assert lapic_registers.read_page(apic, lapic.TIMER_CURRENT, due - 1) == 1
    assert not lapic_timer.expire(apic, due - 1)
    late = due + (periods - 1) * count * step
    assert lapic_timer.expire(apic, late) and take(apic) == 0x40 and apic.timer_interrupts == 1
    assert lapic_timer.next_deadline(apic) == (late + count * step if periodic else NEVER)


def test_a_tsc_deadline_interrupts_once() -> None:
    apic = enabled()
    lapic_timer.set_tsc_deadline(apic, 1000)
    assert apic.tsc_deadline == 0  # not in that mode
    lapic_registers.write_page(apic, lapic.LVT_TIMER, 0x40 | lapic_timer.MODE_TSC_DEADLINE << 17, 0)
    lapic_registers.write_page(apic, lapic.TIMER_INITIAL, 5, 0)
    assert not apic.running
    lapic_timer.set_tsc_deadline(apic, 1000)
    assert not lapic_timer.expire_tsc(apic, 999) and lapic_timer.expire_tsc(apic, 1000) and take(apic) == 0x40
    assert apic.tsc_deadline == 0 and not lapic_timer.expire_tsc(apic, 2000)


@pytest.fixture(scope="module")
def compiled_apic(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    """The local APIC as a host library; KRAIT_HOST_LIBRARY names a ready one."""
    ready = os.environ.get("KRAIT_HOST_LIBRARY")
    if ready is not None:
        return HostLibrary(Path(ready))
    out = tmp_path_factory.mktemp("lapic")
    hostlib.build(ROOT, [MODULE], out, sanitize=False)
    return HostLibrary(out)


Call = tuple[str, str, tuple[int, ...]]


def call_of(kind: str, offset: int, value: int, now: int, apic: Lapic) -> Call:
    """A step of a script as module, function and arguments behind the Lapic."""
    match kind:
        case "r":
            return "lapic_registers", "read_page", (offset, now)
        case "w":
            return "lapic_registers", "write_page", (offset, value & 0xFFFFFFFF, now)
        case "W":
            return "lapic_registers", "write_msr", (0x800 | offset >> 4, value, now)
        case "i":
            return "lapic", "accept", (value & 0xFF, bool(offset & 1))
        case "a":
            vector = lapic.pending(apic)
            return ("lapic", "acknowledge", (vector,)) if vector else ("lapic", "takes_pic", ())
        case "t":
            return "lapic_timer", "expire", (now,)
        case "d":
            return "lapic_timer", "expire_tsc", (now,)
        case "b":
            return "lapic", "write_base", (lapic.BASE | value & 0xD00,)
        case _:
            return "lapic_timer", "set_tsc_deadline", (value,)


@given(STEPS)
@settings(max_examples=300, deadline=None)
def test_compiled_is_interpreted(compiled_apic: HostLibrary, steps: list[tuple[str, int, int, int]]) -> None:
    """Any script of accesses, interrupts and expiries: the same answers, the same bytes."""
    apic = enabled(3)
    compiled = twin(compiled_apic, apic)
    modules = {"lapic": lapic, "lapic_registers": lapic_registers, "lapic_timer": lapic_timer}
    now = 0
    for kind, offset, value, pause in steps:
        now += pause
        module, name, arguments = call_of(kind, offset, value, now, apic)
        expected = getattr(modules[module], name)(apic, *arguments)
        assert compiled_apic.function(f"hypervisor.devices.{module}.{name}")(compiled, *arguments) == expected
        assert same(apic, compiled)
        vector = lapic.pending(apic)
        assert vector == 0 or vector >> 4 > apic.ppr >> 4


@given(STEPS, STEPS)
@settings(max_examples=100, deadline=None)
def test_a_saved_one_goes_on_as_it_was(before: list[tuple[str, int, int, int]], after: list[tuple[str, int, int, int]]) -> None:
    def play(apic: Lapic, steps: list[tuple[str, int, int, int]], now: int) -> list[object]:
        modules = {"lapic": lapic, "lapic_registers": lapic_registers, "lapic_timer": lapic_timer}
        seen = []
        for kind, offset, value, pause in steps:
            now += pause
            module, name, arguments = call_of(kind, offset, value, now, apic)
            seen.append(getattr(modules[module], name)(apic, *arguments))
        return seen
    original, restored = enabled(3), Lapic()
    play(original, before, 0)
    copy(restored, original)
    start = sum(step[3] for step in before)
    assert play(original, after, start) == play(restored, after, start)
    assert read_memory(address(original), sizeof(Lapic)) == read_memory(address(restored), sizeof(Lapic))


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is missing")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """Address, undefined, overflow and implicit-conversion sanitizers over the same scripts."""
    hostlib.build(ROOT, [MODULE], tmp_path, sanitize=True)
    done = run_sanitized(tmp_path, ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/devices/test_lapic.py",
                                    "-k", "test_compiled_is_interpreted"])
    assert done.returncode == 0, done.stdout + done.stderr
