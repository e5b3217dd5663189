"""Mistakes that only show at run time: each function makes one."""
from typing import Annotated, Final

from hypervisor.lang import address, struct, u8, u32, u64


@struct
class Cell:
    """An element."""

    value: u64


@struct
class Cells:
    """Arrays of structs and of arrays."""

    cells: Annotated[list[Cell], 4]
    grid: Annotated[list[Annotated[list[u64], 3]], 2]
    behind: u64


cells: Final = Cells()

TABLE: Final[Annotated[list[u8], 4]] = [1, 2, 3, 4]


def lower(a: u64, b: u64) -> u64:
    """a - b, wrong when b is greater."""
    return a - b


def narrow(value: u32) -> u8:
    """The value as a byte, wrong above 255."""
    return value


def pick(index: u32) -> u8:
    """An element, wrong above 3."""
    return TABLE[index]


def refer(index: u32) -> u32:
    """A reference to an element, wrong above 3: also just behind the last."""
    cell = cells.cells[index]
    return u32(address(cell) - address(cells))


def row(index: u32) -> u64:
    """A row of a table, wrong above 1."""
    cells_of_row = cells.grid[index]
    return address(cells_of_row) - address(cells)


def must_be_even(value: u32) -> u32:
    """Half the value."""
    assert value & 1 == 0
    return value // 2
