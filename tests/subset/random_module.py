"""Random functions of the subset, for comparing compiled with interpreted."""
from __future__ import annotations

import random

HEAD = '''"""Random functions."""
from __future__ import annotations
from typing import Annotated, Final
from hypervisor.lang import i64, sext_i64, struct, u8, u16, u32, u64, wrap_u8, wrap_u16, wrap_u32, wrap_u64

TABLE: Final[Annotated[list[u64], 8]] = [1, 0xFFFF_FFFF_FFFF_FFFF, 3, 1 << 40, 5, 0x8000_0000, 7, 255]


@struct
class State:
    count: u64
    small: u8
    word: u32
    cells: Annotated[list[u64], 8]
    other: State | None


def tick(s: State, x: u64) -> u64:
    s.count = wrap_u64(s.count * 31 + x)
    s.cells[x % 8] = s.count
    return s.count


def first(a: u64, b: u64, c: u64) -> u64:
    return wrap_u64(a * 3 + b * 5 + c * 7)


CALLS: Final = (tick, tick)

'''


class Writer:
    """Writes random expressions of a type, to a depth."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def number(self, depth: int) -> str:
        """An expression of type u64 (or narrower) that cannot overflow."""
        pick = self.random.choice
        if depth == 0:
            return pick(["a", "b", "n", "byte", "s.count", "s.small", "s.word", "s.cells[n % 8]", "TABLE[b % 8]", "0xFFFF_FFFF",
                         "7", "0", "(1 << 63)", "other.count", "other.cells[byte & 7]"])
        one, two, three = (self.number(depth - 1) for _ in range(3))
        return pick([
            f"wrap_u64({one} + {two})", f"wrap_u64({one} - {two} * {three})", f"wrap_u32({one} * {two})", f"wrap_u8(~{one} + {two})",
            f"({one} & {two})", f"({one} | {two})", f"({one} ^ ({two} & 0xFFF))", f"({one} & ~{two})", f"({one} >> ({two} & 63))",
            f"wrap_u64({one} << ({two} % 64))", f"({one} // ({two} | 1))", f"({one} % (({two} & 0xFF) + 1))", f"u16({one})",
            f"({one} if {self.truth(depth - 1)} else {two})", f"tick(s, {one})", f"first({one}, {two}, {three})",
            f"first(tick(s, {one}), s.count, tick(other, {two}))", f"wrap_u64(tick(s, {one}) + s.count)", f"min({one}, {two})",
            f"max({one}, tick(s, {two}))", f"CALLS[{one} % 2](other, {two})", f"u64(sext_i64({one}) >> ({two} & 15))",
            f"s.cells[tick(s, {one}) % 8]", f"wrap_u64(s.count + tick(s, {two}))"])

    def truth(self, depth: int) -> str:
        """A condition."""
        pick = self.random.choice
        one, two = self.number(max(depth - 1, 0)), self.number(max(depth - 1, 0))
        if depth == 0:
            return pick([f"{one} < {two}", f"{one} == {two}", "flag", "not flag", "byte > 7", "n in (1, 2, 3)"])
        left, right = self.truth(depth - 1), self.truth(depth - 1)
        return pick([f"({left} and {right})", f"({left} or {right})", f"(not {left})", f"({one} <= tick(s, {two}) < {one})",
                     f"({one} in ({self.number(0)}, 1, 2))", f"(sext_i64({one}) < sext_i64({two}))"])

    def statement(self, depth: int) -> list[str]:
        """One statement, as lines without indentation."""
        number, truth, pick = self.number, self.truth, self.random.choice
        if depth == 0:
            return [pick([f"s.cells[{number(1)} % 8] = {number(2)}", f"s.count = {number(2)}", f"s.small = u8({number(2)})",
                          f"s.word = wrap_u32({number(1)})", f"x = {number(2)}", "x = wrap_u64(x + 1)", f"other.count = tick(s, {number(1)})",
                          f"s.count ^= {number(2)}", f"s.word &= {number(1)}", f"s.word |= u32({number(1)})", "x //= 3"])]
        inner = [f"    {line}" for _ in range(self.random.randint(1, 2)) for line in self.statement(depth - 1)]
        other = [f"    {line}" for line in self.statement(depth - 1)]
        return pick([
            [f"if {truth(1)}:", *inner, "else:", *other],
            [f"if {truth(1)}:", *inner, f"elif {truth(1)}:", *other],
            [f"for i{depth} in range({self.random.randint(0, 5)}, {number(0)} % 9, {self.random.randint(1, 3)}):", *inner,
             f"    x = wrap_u64(x * 3 + i{depth})"],
            [f"for i{depth} in range({number(0)} % 6, -1, -1):", *inner, f"    x = wrap_u64(x + (i{depth} << {depth}))"],
            [f"for c{depth} in s.cells:", f"    if c{depth} == {number(0)}:", "        break", *inner, f"    x ^= c{depth}"],
            [f"match {number(1)} % 5:", "    case 0 | 3:", *(f"    {line}" for line in inner), f"    case 1 if {truth(0)}:",
             *(f"    {line}" for line in other), "    case _:", "        x = wrap_u64(x - 1)"]])

    def function(self, name: str) -> str:
        """A whole function."""
        lines = [f"def {name}(s: State, other: State, a: u64, b: u64, n: u32, byte: u8, flag: bool) -> u64:", f"    x: u64 = {self.number(2)}"]
        for _ in range(self.random.randint(1, 4)):
            lines += [f"    {line}" for line in self.statement(self.random.randint(0, 2))]
        return "\n".join([*lines, f"    return wrap_u64(x + {self.number(3)})", "", ""])


def module(seed: int, count: int) -> str:
    """A module with `count` random functions f0, f1, ..."""
    writer = Writer(seed)
    return HEAD + "\n".join(writer.function(f"f{number}") for number in range(count))
