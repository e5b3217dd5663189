"""I/O APIC and HPET: by the cases of their data sheets, against models, interpreted and compiled."""
from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hostlib
from host_library import HostLibrary
from hypervisor.devices import hpet, ioapic, platform
from hypervisor.devices.hpet import Hpet
from hypervisor.devices.ioapic import IoApic
from hypervisor.devices.lapic import Message
from hypervisor.devices.platform import Platform
from hypervisor.devices.rate import NEVER
from hypervisor.lang import address, copy, read_memory, sizeof
from tests.three_lives.builds import ROOT
from tests.three_lives.mirror import same, twin
from tests.three_lives.test_scenario import run_sanitized

MODULE = "hypervisor.devices.platform"
PINS = st.integers(0, 23)


def fresh() -> IoApic:
    io = IoApic()
    ioapic.reset(io)
    return io


def program(io: IoApic, pin: int, low: int, high: int = 0) -> None:
    for index, value in ((0x11 + 2 * pin, high), (0x10 + 2 * pin, low)):
        ioapic.write(io, ioapic.SELECT, index)
        ioapic.write(io, ioapic.WINDOW, value)


def sent(io: IoApic) -> list[tuple[int, int]]:
    """Pins and vectors of all messages that wait."""
    messages = []
    while io.wanted:
        message = Message()
        pin = ioapic.take_message(io, message)
        messages.append((pin, message.vector))
    return messages


@given(PINS, st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_entries_keep_what_is_writable(pin: int, low: int, high: int) -> None:
    io = fresh()
    program(io, pin, low, high)
    ioapic.write(io, ioapic.SELECT, 0x10 + 2 * pin)
    assert ioapic.read(io, ioapic.WINDOW) == low & 0x1AFFF
    ioapic.write(io, ioapic.SELECT, 0x11 + 2 * pin)
    assert ioapic.read(io, ioapic.WINDOW) == high & 0xFF000000
    ioapic.write(io, ioapic.SELECT, 1)
    assert ioapic.read(io, ioapic.WINDOW) == 0x170020


@given(PINS)
def test_an_edge_sends_once_and_is_lost_while_masked(pin: int) -> None:
    io = fresh()
    ioapic.set_line(io, pin, True)
    assert sent(io) == []
    program(io, pin, 0x40 + pin)
    assert sent(io) == []
    ioapic.set_line(io, pin, False)
    ioapic.set_line(io, pin, True)
    ioapic.set_line(io, pin, True)
    assert sent(io) == [(pin, 0x40 + pin)]


@given(PINS)
def test_a_level_sends_again_after_its_end(pin: int) -> None:
    io = fresh()
    program(io, pin, 0x8000 | 0x50)
    ioapic.set_line(io, pin, True)
    assert sent(io) == [(pin, 0x50)]
    ioapic.set_line(io, pin, True)
    assert sent(io) == []  # in service: remote IRR
    ioapic.end_of_interrupt(io, 0x51)
    assert sent(io) == []
    ioapic.write(io, ioapic.EOI, 0x50)
    assert sent(io) == [(pin, 0x50)]
    ioapic.set_line(io, pin, False)
    ioapic.end_of_interrupt(io, 0x50)
    assert sent(io) == []


def test_unmasking_an_asserted_level_sends_and_edge_mode_clears_remote_irr() -> None:
    """What Linux does to an I/O APIC without EOI register: mask, edge, level."""
    io = fresh()
    program(io, 9, 0x18050)
    ioapic.set_line(io, 9, True)
    assert sent(io) == []
    program(io, 9, 0x8050)
    assert sent(io) == [(9, 0x50)] and io.entries[9] & ioapic.REMOTE_IRR
    program(io, 9, 0x10050)
    program(io, 9, 0x18050)
    assert not io.entries[9] & ioapic.REMOTE_IRR
    program(io, 9, 0x8050)
    assert sent(io) == [(9, 0x50)]


def test_a_level_that_nobody_takes_is_not_in_service() -> None:
    io = fresh()
    program(io, 5, 0x8045)
    ioapic.set_line(io, 5, True)
    assert sent(io) == [(5, 0x45)]
    ioapic.refused(io, 5)
    ioapic.set_line(io, 5, True)
    assert sent(io) == [(5, 0x45)]


def running(now: int = 0, legacy: bool = False) -> Hpet:
    timers = Hpet()
    hpet.reset(timers)
    hpet.write(timers, 0x10, 3 if legacy else 1, NEVER, now)
    return timers


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_the_counter_counts_while_it_is_enabled(start: int, length: int) -> None:
    timers = running(start)
    assert hpet.read(timers, 0xF0, start + length) == length // 10
    hpet.write(timers, 0x10, 0, NEVER, start + length)
    assert hpet.read(timers, 0xF0, start + length + 10**9) == length // 10
    hpet.write(timers, 0xF0, 0x1234, NEVER, start + length)
    assert hpet.read(timers, 0xF0, start + length) == 0x1234


@given(st.integers(0, 10**12), st.integers(1, 10**9), st.integers(1, 2), st.booleans())
def test_a_comparator_matches_once(now: int, delta: int, number: int, narrow: bool) -> None:
    timers = running()
    base = 0x100 + 0x20 * number
    hpet.write(timers, base, 4 | (0x100 if narrow else 0) | 20 << 9, NEVER, now)
    hpet.write(timers, base + 8, (now // 10 + delta) & (0xFFFFFFFF if narrow else NEVER), NEVER, now)
    due = (now // 10 + delta) * 10
    assert hpet.next_deadline(timers) == due and hpet.pin_of(timers, number) == 20
    hpet.advance(timers, due - 1)
    assert timers.raised == 0
    hpet.advance(timers, due)
    assert timers.raised == 1 << number and hpet.next_deadline(timers) == NEVER


@given(st.integers(0, 10**9), st.integers(100, 10**6), st.integers(1, 5))
def test_linux_periodic_timer_ticks(now: int, period: int, late: int) -> None:
    """hpet_set_periodic of arch/x86/kernel/hpet.c: value set, then the match, then the period; 32 bits."""
    timers = running(0, legacy=True)
    hpet.write(timers, 0x100, 0x4 | 0x8 | 0x40 | 0x100, 0xFFFFFFFF, now)
    first = now // 10 + period
    hpet.write(timers, 0x108, first & 0xFFFFFFFF, 0xFFFFFFFF, now)
    hpet.write(timers, 0x108, period, 0xFFFFFFFF, now)
    assert hpet.next_deadline(timers) == first * 10
    hpet.advance(timers, (first + (late - 1) * period) * 10)
    assert timers.raised == 1 and hpet.next_deadline(timers) == (first + late * period) * 10


def test_legacy_replacement_takes_the_interval_timers_place() -> None:
    """Timer 0 comes at interrupt 0 and the 8254 no more; a level-triggered timer 2 at its pin until its status is cleared."""
    p = Platform()
    platform.reset(p, 946728000, 0)
    program(p.ioapic, ioapic.PIN_TIMER, 0x30)
    program(p.ioapic, 21, 0x8051)
    for port, value in ((0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)):
        platform.write(p, port, 1, value, 0)
    platform.write_page(p, hpet.BASE + 0x10, 8, 3, 0)
    platform.write_page(p, hpet.BASE + 0x100, 8, 4, 0)
    platform.write_page(p, hpet.BASE + 0x108, 8, 300_000, 0)
    platform.advance(p, 2_000_000)
    assert sent(p.ioapic) == []
    platform.advance(p, 3_000_000)
    assert sent(p.ioapic) == [(2, 0x30)]
    platform.write_page(p, hpet.BASE + 0x140, 8, 4 | 2 | 21 << 9, 3_000_000)
    platform.write_page(p, hpet.BASE + 0x148, 8, 400_000, 3_000_000)
    platform.advance(p, 4_000_000)
    assert sent(p.ioapic) == [(21, 0x51)] and platform.read_page(p, hpet.BASE + 0x20, 4, 4_000_000) == 4
    platform.write_page(p, hpet.BASE + 0x20, 4, 4, 4_000_000)
    ioapic.end_of_interrupt(p.ioapic, 0x51)
    assert sent(p.ioapic) == []


def test_an_interval_timer_ticks_through_the_io_apic_while_the_8259_has_one_waiting() -> None:
    p = Platform()
    platform.reset(p, 946728000, 0)
    for port, value in ((0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)):
        platform.write(p, port, 1, value, 0)
    platform.advance(p, 2_000_000)
    assert platform.next_deadline(p) == NEVER
    platform.write_page(p, ioapic.BASE, 4, 0x14, 2_000_000)
    platform.write_page(p, ioapic.BASE + 0x10, 4, 0x30, 2_000_000)
    for _ in range(3):
        due = platform.next_deadline(p)
        assert due != NEVER
        platform.advance(p, due)
        assert sent(p.ioapic) == [(2, 0x30)]


Step = tuple[str, int, int, int, int]
PLACES = st.one_of(st.sampled_from([ioapic.BASE, ioapic.BASE + 0x10, ioapic.BASE + 0x40, *(hpet.BASE + at for at in (
    0, 0x10, 0x20, 0xF0, 0x100, 0x104, 0x108, 0x10C, 0x120, 0x128, 0x140, 0x148))]), st.integers(ioapic.BASE, ioapic.BASE + 0xFFF),
    st.integers(hpet.BASE, hpet.BASE + 0x3FF))
STEPS = st.lists(st.tuples(st.sampled_from("rwwatp"), PLACES, st.sampled_from([1, 2, 4, 4, 8]),
                           st.one_of(st.integers(0, 0x3F), st.integers(0, (1 << 64) - 1)), st.integers(0, 10**7)), max_size=60)


@pytest.fixture(scope="module")
def compiled_platform(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    """The platform as a host library; KRAIT_HOST_LIBRARY names a ready one."""
    ready = os.environ.get("KRAIT_HOST_LIBRARY")
    if ready is not None:
        return HostLibrary(Path(ready))
    out = tmp_path_factory.mktemp("platform")
    hostlib.build(ROOT, [MODULE], out, sanitize=False)
    return HostLibrary(out)


def call_of(kind: str, place: int, size: int, value: int, now: int) -> tuple[str, tuple[int, ...]]:
    """One step as a function of the platform and its arguments."""
    place -= max(0, (place & 7) + size - 8)
    match kind:
        case "r":
            return "read_page", (place, size, now)
        case "w":
            return "write_page", (place, size, value & (1 << 8 * size) - 1, now)
        case "p":
            return "set_line", (value % 16, bool(value & 16))
        case "t":
            return "next_deadline", ()
        case _:
            return "advance", (now,)


@given(STEPS)
@settings(max_examples=300, deadline=None)
def test_compiled_is_interpreted(compiled_platform: HostLibrary, steps: list[Step]) -> None:
    """Any script of accesses to both pages, lines and time: the same answers, the same bytes; nothing is due in the past."""
    p = Platform()
    platform.reset(p, 946728000, 0)
    compiled = twin(compiled_platform, p)
    take = compiled_platform.function("hypervisor.devices.ioapic.take_message")
    now = 0
    for kind, place, size, value, pause in steps:
        now += pause
        name, arguments = call_of(kind, place, size, value, now)
        assert getattr(platform, name)(p, *arguments) == compiled_platform.function(f"{MODULE}.{name}")(compiled, *arguments)
        if kind == "a":
            assert platform.next_deadline(p) > now
            while p.ioapic.wanted:
                message, other = Message(), twin(compiled_platform, Message())
                assert ioapic.take_message(p.ioapic, message) == take(compiled.ioapic, other) and same(message, other)
        assert same(p, compiled)


@given(STEPS, STEPS)
@settings(max_examples=100, deadline=None)
def test_a_saved_platform_goes_on_as_it_was(before: list[Step], after: list[Step]) -> None:
    def play(p: Platform, steps: list[Step], now: int) -> list[object]:
        seen = []
        for kind, place, size, value, pause in steps:
            now += pause
            name, arguments = call_of(kind, place, size, value, now)
            seen.append(getattr(platform, name)(p, *arguments))
        return seen
    original, restored = Platform(), Platform()
    platform.reset(original, 946728000, 0)
    play(original, before, 0)
    copy(restored, original)
    start = sum(step[4] for step in before)
    assert play(original, after, start) == play(restored, after, start)
    assert read_memory(address(original), sizeof(Platform)) == read_memory(address(restored), sizeof(Platform))


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is missing")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """Address, undefined, overflow and implicit-conversion sanitizers over the same scripts."""
    hostlib.build(ROOT, [MODULE], tmp_path, sanitize=True)
    done = run_sanitized(tmp_path, ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/devices/test_ioapic_hpet.py",
                                    "-k", "test_compiled_is_interpreted"])
    assert done.returncode == 0, done.stdout + done.stderr
