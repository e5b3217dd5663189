"""The vocabulary under CPython: views over fake memory behave as C does."""
from __future__ import annotations

from enum import IntEnum
from typing import Annotated

import pytest

from hypervisor.lang import (Fault, address, array, at, char_at, clear, copy, i32, i64, map_memory, offsetof, read_memory, sext_i64,
                             sizeof, struct, text_address, text_at, u8, u16, u32, u64, union, unmap_memory, wrap_u32, write_memory)


class Kind(IntEnum):
    """An enum."""

    NONE = 0
    SOME = 7


@struct
class Inner:
    """Nested by value."""

    low: u16
    high: u32


@struct(packed=True)
class Packed:
    """Without gaps."""

    limit: u16
    base: u64


@union
class Word:
    """One number, four bytes."""

    value: u32
    parts: Annotated[list[u8], 4]


@struct
class Outer:
    """Everything."""

    flag: bool
    kind: Kind
    inner: Inner
    next: Outer | None
    name: str
    grid: Annotated[list[Annotated[list[u16], 3]], 2]
    signed: i32


def test_layout_is_that_of_c() -> None:
    assert (sizeof(Inner), offsetof(Inner, "high")) == (8, 4)
    assert (sizeof(Packed), offsetof(Packed, "base")) == (10, 2)
    assert (sizeof(Outer), offsetof(Outer, "next"), offsetof(Outer, "signed")) == (48, 16, 44)


def test_a_field_is_the_same_memory_everywhere() -> None:
    outer = Outer()
    inner = outer.inner
    inner.high = 0x01020304
    assert read_memory(address(outer) + offsetof(Outer, "inner") + 4, 4) == 0x01020304
    write_memory(address(inner), 2, 0xBEEF)
    assert outer.inner.low == 0xBEEF
    word = Word()
    word.value = 0x01020304
    assert list(word.parts) == [4, 3, 2, 1]


def test_pointers_are_addresses() -> None:
    first, second = Outer(), Outer()
    assert first.next is None
    first.next = second
    second.signed = -5
    assert first.next is not None and first.next.signed == -5
    assert first.next == second and first != second
    assert read_memory(address(first) + offsetof(Outer, "next"), 8) == address(second)


def test_stores_are_checked() -> None:
    outer = Outer()
    with pytest.raises(OverflowError):
        outer.inner.low = 65536
    with pytest.raises(OverflowError):
        outer.inner.high = -1
    with pytest.raises(TypeError):
        outer.inner = Inner()
    with pytest.raises(IndexError):
        outer.grid[-1][0] = 1
    with pytest.raises(IndexError):
        outer.grid[2][0] = 1


def test_enums_bools_and_texts_come_back_as_themselves() -> None:
    outer = Outer()
    outer.kind, outer.flag, outer.name = Kind.SOME, True, "abc"
    assert outer.kind is Kind.SOME and outer.flag is True and outer.name == "abc"
    assert text_at(text_address("hello")) == "hello"
    assert [char_at("ab", i) for i in range(3)] == [97, 98, 0]
    with pytest.raises(IndexError):
        char_at("ab", 3)


def test_copy_and_clear() -> None:
    one, two = Inner(), Inner()
    one.high = 9
    copy(two, one)
    assert two.high == 9
    clear(two)
    assert two.high == 0 and one.high == 9
    with pytest.raises(TypeError):
        copy(two, Outer())
    pair: Annotated[list[Inner], 2] = array(Inner, 2)
    with pytest.raises(ValueError):
        copy(at(Inner, address(pair) + 4), pair[0])


def test_memory_is_mapped_and_faults() -> None:
    memory = bytearray(4096)
    map_memory(0x10_0000, memory)
    try:
        at(Inner, 0x10_0008).high = 5
        assert memory[12] == 5
        with pytest.raises(ValueError):
            map_memory(0x10_0800, bytearray(16))
        with pytest.raises(Fault):
            at(Inner, 0x10_0FFC)
    finally:
        unmap_memory(0x10_0000)
    with pytest.raises(Fault):
        at(Inner, 0x10_0008)


def test_storage_that_nobody_refers_to_is_gone() -> None:
    place = address(Inner())
    with pytest.raises(Fault):
        at(Inner, place)


def test_numbers() -> None:
    assert (u8(300), u32(-1), i64(2**63), i32(2**31)) == (44, 2**32 - 1, -2**63, -2**31)
    assert wrap_u32(2**32 + 3) == 3
    assert (sext_i64(2**64 - 1), sext_i64(5)) == (-1, 5)
