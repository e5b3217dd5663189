"""Emulated devices do the same interpreted and compiled, whatever a guest writes."""
from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from host_library import HostLibrary
from hypervisor.devices import pic8259, pit8254, rtc_mc146818, uart16550
from tests.three_lives.mirror import raw, same, twin

Operation = tuple[str, tuple[int, ...]]
BYTE = st.integers(0, 255)
CHIP = st.integers(0, 1)
STEP = st.integers(0, 2**33)


def replay(library: HostLibrary, module: Any, state: object, operations: list[Operation]) -> None:
    """Run the operations in both worlds; answers and bytes agree after each."""
    compiled = twin(library, state)
    for name, arguments in operations:
        answer = getattr(module, name)(state, *arguments)
        assert library.function(f"{module.__name__}.{name}")(compiled, *arguments) == answer, (name, arguments)
        assert same(state, compiled), (name, arguments, raw(state), bytes(compiled))


def timed(operations: list[tuple[str, tuple[int, ...], int]]) -> list[Operation]:
    """Operations with a clock that only goes forward as their last argument."""
    now, result = 0, []
    for name, arguments, step in operations:
        now += step
        result.append((name, (*arguments, now)))
    return result


@settings(deadline=None, max_examples=120)
@given(st.lists(st.one_of(
    st.tuples(st.just("write"), st.tuples(CHIP, st.booleans(), BYTE)), st.tuples(st.just("read"), st.tuples(CHIP, st.booleans())),
    st.tuples(st.just("set_line"), st.tuples(st.integers(0, 15), st.booleans())), st.tuples(st.just("acknowledge"), st.just(())),
    st.tuples(st.just("write_level"), st.tuples(CHIP, BYTE)), st.tuples(st.just("pending"), st.just(()))), max_size=40))
def test_pic8259(library: HostLibrary, operations: list[Operation]) -> None:
    pic = pic8259.Pic()
    pic8259.reset(pic)
    replay(library, pic8259, pic, operations)


@settings(deadline=None, max_examples=120)
@given(st.lists(st.one_of(
    st.tuples(st.just("write_control"), st.tuples(BYTE), STEP), st.tuples(st.just("write_count"), st.tuples(st.integers(0, 2), BYTE), STEP),
    st.tuples(st.just("read_count"), st.tuples(st.integers(0, 2)), STEP), st.tuples(st.just("write_port61"), st.tuples(BYTE), STEP),
    st.tuples(st.just("read_port61"), st.just(()), STEP), st.tuples(st.just("take_edge"), st.just(()), STEP)), max_size=40))
def test_pit8254(library: HostLibrary, operations: list[tuple[str, tuple[int, ...], int]]) -> None:
    pit = pit8254.Pit()
    pit8254.reset(pit, 0)
    replay(library, pit8254, pit, timed(operations))


@settings(deadline=None, max_examples=120)
@given(st.integers(0, 2**32), st.lists(st.one_of(
    st.tuples(st.just("write_index"), st.tuples(BYTE), st.none()), st.tuples(st.just("write_data"), st.tuples(BYTE), STEP),
    st.tuples(st.just("read_data"), st.just(()), STEP)), max_size=40))
def test_rtc_mc146818(library: HostLibrary, start: int, operations: list[tuple[str, tuple[int, ...], int | None]]) -> None:
    rtc = rtc_mc146818.Rtc()
    rtc_mc146818.reset(rtc, start, 0)
    now, sequence = 0, []
    for name, arguments, step in operations:
        now += step or 0
        sequence.append((name, arguments if step is None else (*arguments, now)))
    replay(library, rtc_mc146818, rtc, sequence)


@settings(deadline=None, max_examples=120)
@given(st.lists(st.one_of(
    st.tuples(st.just("write"), st.tuples(st.integers(0, 7), BYTE)), st.tuples(st.just("read"), st.tuples(st.integers(0, 7))),
    st.tuples(st.just("receive"), st.tuples(BYTE)), st.tuples(st.just("line"), st.just(()))), max_size=50))
def test_uart16550(library: HostLibrary, operations: list[Operation]) -> None:
    uart = uart16550.Uart()
    uart16550.reset(uart)
    replay(library, uart16550, uart, operations)
