"""The same bytes in both worlds: structs of the interpreted modules and of the compiled ones."""
from __future__ import annotations

import ctypes
from typing import Any, TypeVar

from host_library import HostLibrary
from hypervisor import lang

T = TypeVar("T")


def raw(view: object) -> bytearray:
    """The bytes of an interpreted struct."""
    region, offset = lang.region_of(lang.address(view), lang.sizeof(type(view)))
    return region.data[offset:offset + lang.sizeof(type(view))]


def twin(library: HostLibrary, view: object) -> Any:
    """A compiled struct with the same bytes."""
    kind = type(view)
    return library.struct(f"{kind.__module__}.{kind.__name__}").from_buffer_copy(raw(view))


def same(view: object, compiled: Any) -> bool:
    """Whether both structs have the same bytes."""
    return bytes(raw(view)) == bytes(compiled)


def shared_memory(size: int) -> tuple[int, Any]:
    """Real memory, and the fake address space's view of the same addresses; empty, page-aligned."""
    buffer = (ctypes.c_uint8 * (size + 4096))()
    base = (ctypes.addressof(buffer) + 4095) & ~4095
    return base, buffer
