#!/usr/bin/env python3
"""Writes hypervisor/saved_layouts.py: where the bytes of each piece of device state lie, from the structs themselves.

    .venv/bin/python build/saved_layouts.py > hypervisor/saved_layouts.py

A piece is a struct, or named fields of one. Neighbouring fields are one run; padding is in none. Pointers and host addresses are refused: they
mean nothing to another boot. The mark of a piece is a checksum of the names, places and types of its fields: another layout has another mark.
"""
from __future__ import annotations

import importlib
import sys
import zlib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NewType, Union, get_args, get_origin, get_type_hints

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hypervisor.lang import offsetof, sizeof  # noqa: E402

BOARD = ("version", "effects", "sent_byte", "exit_code", "boot_seconds", "unknown_reads", "unknown_writes", "last_unknown")
PIECES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "BOARD": ("hypervisor.devices.platform", "Platform", BOARD),
    "PIC": ("hypervisor.devices.pic8259", "Pic", ()),
    "PIT": ("hypervisor.devices.pit8254", "Pit", ()),
    "UART": ("hypervisor.devices.uart16550", "Uart", ()),
    "RTC": ("hypervisor.devices.rtc_mc146818", "Rtc", ()),
    "KEYBOARD": ("hypervisor.devices.i8042", "I8042", ()),
    "ACPI": ("hypervisor.devices.acpi_pm", "AcpiPm", ()),
    "DEBUG_PORTS": ("hypervisor.devices.debug_ports", "DebugPorts", ()),
    "IOAPIC": ("hypervisor.devices.ioapic", "IoApic", ()),
    "HPET": ("hypervisor.devices.hpet", "Hpet", ()),
    "LAPIC": ("hypervisor.devices.lapic", "Lapic", ()),
    "KEPT": ("hypervisor.model", "KeptState", ()),
    "PCI": ("hypervisor.devices.pci_host", "PciHost", ()),
    "VIRTIO": ("hypervisor.virtio.state", "Registers", ()),
}
"""By name: module, struct, and the fields meant; none: all. (The PM timer has no state but the time.)"""

Run = tuple[int, int]


def struct_of(piece: str) -> Any:
    """The class of a piece."""
    module, name, _ = PIECES[piece]
    return getattr(importlib.import_module(module), name)


def runs_of(cls: Any, names: tuple[str, ...] = ()) -> tuple[list[Run], str]:
    """(offset, bytes) of the fields, joined where they touch, and their description; TypeError for what cannot be saved."""
    runs: list[Run] = []
    told = ""
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if names and name not in names:
            continue
        inner, text = runs_of_type(hint, f"{cls.__name__}.{name}")
        told += f"{name}@{offsetof(cls, name)}:{text};"
        for offset, size in inner:
            place = offsetof(cls, name) + offset
            if runs and sum(runs[-1]) == place:
                runs[-1] = (runs[-1][0], runs[-1][1] + size)
            else:
                runs.append((place, size))
    return runs, told


def runs_of_type(hint: Any, where: str) -> tuple[list[Run], str]:
    """Likewise of one field or element."""
    if get_origin(hint) is Annotated:
        inner, count = get_args(hint)[:2]
        element = get_args(inner)[0]
        runs, told = runs_of_type(element, where)
        step = sizeof(element)
        return [(offset + step * index, size) for index in range(count) for offset, size in runs], f"{told}*{count}"
    if isinstance(hint, NewType) or get_origin(hint) in (Union, UnionType) or hint is str:
        raise TypeError(f"{where} is an address: it cannot be saved")
    if hasattr(hint, "_krait_layout"):
        runs, told = runs_of(hint)
        return runs, f"({told})"
    return [(0, sizeof(hint))], hint.__name__


def table(name: str, kind: str, count: str, values: list[int]) -> str:
    """A constant table, in lines of bounded length."""
    lines, line = [], "   "
    for value in values:
        if len(line) + len(f" {value},") > 136:
            lines.append(line)
            line = "   "
        line += f" {value},"
    return f"{name}: Final[Annotated[list[{kind}], {count}]] = [\n" + "\n".join([*lines, line]) + "\n]\n"


def text() -> str:
    """The whole file."""
    found = {piece: runs_of(struct_of(piece), PIECES[piece][2]) for piece in PIECES}
    first, runs = [0], list[Run]()
    for pieces, _ in found.values():
        runs += pieces
        first.append(len(runs))
    out = ['"""Where the bytes of saved device state lie. Written by build/saved_layouts.py, which tells how to read it; not to be changed by hand."""',
           "from enum import IntEnum", "from typing import Annotated, Final", "", "from hypervisor.lang import u32", "", "",
           "class Piece(IntEnum):", '    """What is saved as one record."""', ""]
    out += [f"    {piece} = {number}" for number, piece in enumerate(PIECES)]
    out += ["", "", f"PIECES: Final = {len(PIECES)}", f"RUNS: Final = {len(runs)}", "# By piece: its mark, its bytes, and its first run (one more: the end)."]
    out += [table("MARKS", "u32", "PIECES", [zlib.crc32(told.encode()) for _, told in found.values()]).rstrip(),
            table("BYTES", "u32", "PIECES", [sum(size for _, size in pieces) for pieces, _ in found.values()]).rstrip(),
            table("FIRST", "u32", str(len(first)), first).rstrip(),
            "# By run: where in the struct, and how many bytes.",
            table("OFFSETS", "u32", "RUNS", [offset for offset, _ in runs]).rstrip(),
            table("LENGTHS", "u32", "RUNS", [size for _, size in runs])]
    return "\n".join(out)


if __name__ == "__main__":
    print(text(), end="")
