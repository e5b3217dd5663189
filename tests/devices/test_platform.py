"""The whole platform: no guest can upset it, it can be saved, its effects reach the outside."""
from hypothesis import given, settings

from hypervisor.devices import platform, uart16550
from hypervisor.devices.platform import Platform
from hypervisor.devices.rate import NEVER
from hypervisor.lang import address, copy, read_memory, sizeof
from tests.devices.scripts import STEPS, Step


def fresh() -> Platform:
    made = Platform()
    platform.reset(made, 946728000, 0)
    return made


def play(p: Platform, steps: list[Step], now: int) -> list[int]:
    """Run a script of accesses, acknowledgements and typed bytes; all that can be seen."""
    seen = []
    for kind, port, size, value, pause in steps:
        now += pause
        match kind:
            case "r":
                read = platform.read(p, port, size, now)
                assert 0 <= read < 1 << 8 * size
                seen.append(read)
            case "w":
                platform.write(p, port, size, value & (1 << 8 * size) - 1, now)
            case "a":
                platform.advance(p, now)
                due = platform.next_deadline(p)
                assert due > now
                if platform.interrupt_pending(p):
                    vector = platform.acknowledge(p)
                    assert 0 <= vector <= 255
                    seen.append(vector)
            case "t":
                if uart16550.room(p.uart):
                    platform.receive(p, value & 0xFF)
        seen.append(p.effects)
        p.effects = 0
    return seen


def image(p: Platform) -> int:
    return read_memory(address(p), sizeof(Platform))


@given(STEPS)
@settings(max_examples=400, deadline=None)
def test_any_sequence_of_accesses_is_survived(steps: list[Step]) -> None:
    play(fresh(), steps, 0)


@given(STEPS, STEPS)
@settings(max_examples=200, deadline=None)
def test_a_saved_platform_goes_on_as_it_was(before: list[Step],
                                            after: list[Step]) -> None:
    original, restored = fresh(), Platform()
    play(original, before, 0)
    copy(restored, original)
    start = sum(step[4] for step in before)
    assert play(original, after, start) == play(restored, after, start)
    assert image(original) == image(restored)


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_a_reset_forgets_everything(steps: list[Step]) -> None:
    used = fresh()
    play(used, steps, 0)
    platform.reset(used, 946728000, 0)
    assert image(used) == image(fresh())


def test_unknown_ports_read_ones_and_are_counted() -> None:
    p = fresh()
    assert [platform.read(p, 0x9999, size, 0) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]
    platform.write(p, 0x9998, 4, 0, 0)
    assert (p.unknown_reads, p.unknown_writes, p.last_unknown) == (3, 1, 0x9998)


def test_power_and_reset_reach_the_outside() -> None:
    for port, size, value, effect in ((0x604, 2, 0x3400, platform.EFFECT_POWER_OFF), (0x604, 4, 0x3400, platform.EFFECT_POWER_OFF),
                                      (0x605, 1, 0x34, platform.EFFECT_POWER_OFF), (0xF4, 1, 7, platform.EFFECT_POWER_OFF),
                                      (0xCF9, 1, 0x06, platform.EFFECT_RESET), (0x64, 1, 0xFE, platform.EFFECT_RESET)):
        p = fresh()
        platform.write(p, port, size, value, 0)
        assert p.effects & (platform.EFFECT_POWER_OFF | platform.EFFECT_RESET) == effect, hex(port)
        assert p.exit_code == (7 if port == 0xF4 else 0)
    p = fresh()
    platform.write(p, 0x604, 2, 0x2400, 0)  # SLP_TYP 1: not soft off
    assert not p.effects & platform.EFFECT_POWER_OFF


def test_ticks_reach_the_vcpu() -> None:
    p = fresh()
    for port, value in ((0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, 0xFE), (0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)):
        platform.write(p, port, 1, value, 0)
    assert not platform.interrupt_pending(p)
    due = platform.next_deadline(p)
    assert due == 999_848  # 1193 ticks of 838.1 ns
    platform.advance(p, due)
    assert platform.interrupt_pending(p) and platform.acknowledge(p) == 0x30
    assert platform.next_deadline(p) == 2 * 1193 * 10**9 // 1193182 + 1


def test_typed_bytes_interrupt() -> None:
    p = fresh()
    for port, value in ((0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, 0), (0x3FA, 1), (0x3FC, 0x0B), (0x3F9, 1)):
        platform.write(p, port, 1, value, 0)
    assert not platform.interrupt_pending(p)
    platform.receive(p, 0x41)
    assert platform.interrupt_pending(p) and platform.acknowledge(p) == 0x34
    assert platform.read(p, 0x3F8, 1, 0) == 0x41


def test_the_keyboard_controller_passes_linux_probe() -> None:
    """i8042_controller_check, _selftest and _init of drivers/input/serio/i8042.c."""
    p = fresh()
    assert platform.read(p, 0x64, 1, 0) & 3 == 0
    platform.write(p, 0x64, 1, 0xAA, 0)
    assert platform.read(p, 0x64, 1, 0) & 1 and platform.read(p, 0x60, 1, 0) == 0x55
    platform.write(p, 0x64, 1, 0x60, 0)
    platform.write(p, 0x60, 1, 0x77, 0)
    platform.write(p, 0x64, 1, 0x20, 0)
    assert platform.read(p, 0x60, 1, 0) == 0x77
    platform.write(p, 0x64, 1, 0xD3, 0)
    platform.write(p, 0x60, 1, 0x5A, 0)
    assert platform.read(p, 0x64, 1, 0) & 0x21 == 0x21 and platform.read(p, 0x60, 1, 0) == 0x5A


def test_nothing_is_due_at_first() -> None:
    assert platform.next_deadline(fresh()) == NEVER
