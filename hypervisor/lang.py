"""The vocabulary of the subset (docs/subset.md): what every freestanding module may import.

The compiler knows these names and emits machine code for them. Under CPython the same names
work on a fake 64-bit address space made of byte arrays, so that overlays, unions, aliasing and
addresses behave as on metal. Memory is mapped into it by `map_memory` (host code only).
"""
from __future__ import annotations

import enum
import struct as codec
import types
import weakref
from bisect import bisect_right, insort
from typing import (TYPE_CHECKING, Annotated, Any, Callable, Iterator, NewType, TypeAlias, TypeVar,
                    Union, cast, get_args, get_origin, get_type_hints, overload)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    u8: TypeAlias = int
    u16: TypeAlias = int
    u32: TypeAlias = int
    u64: TypeAlias = int
    i32: TypeAlias = int
    i64: TypeAlias = int
else:
    def _width(name, code, bits, signed):
        """A width: called, it truncates explicitly, as the cast of the same name does in C."""
        mask, top = (1 << bits) - 1, 1 << (bits - 1)

        def truncate(_cls, value):
            value = int(value) & mask
            return value - mask - 1 if signed and value & top else value

        low = -top if signed else 0
        return type(name, (), {"__new__": truncate, "code": codec.Struct("<" + code), "low": low,
                               "high": low + mask, "__doc__": f"{bits}-bit integer"})

    u8, u16 = _width("u8", "B", 8, False), _width("u16", "H", 16, False)
    u32, u64 = _width("u32", "I", 32, False), _width("u64", "Q", 64, False)
    i32, i64 = _width("i32", "i", 32, True), _width("i64", "q", 64, True)


class Fault(Exception):
    """An access to fake memory that no region backs (on metal: a page fault)."""


class Region:
    """A piece of the fake address space: `data` is seen at `base`."""

    __slots__ = ("base", "data", "__weakref__")

    def __init__(self, base: int, data: bytearray) -> None:
        self.base = base
        self.data = data


# Storage of structs and texts starts on a page of its own each; what nobody refers to any more goes away.
_FIRST_PAGE = 0x40_0000_0000 >> 12
_next_page = _FIRST_PAGE
_storage: weakref.WeakValueDictionary[int, Region] = weakref.WeakValueDictionary()
_mapped: list[tuple[int, int]] = []
_mapped_region: dict[int, Region] = {}
_found = (0, 0, Region(0, bytearray()))  # start, end: the mapped memory that was asked for last
_texts: dict[str, Region] = {}
_link_addresses: dict[str, int] = {"__symbols_start": 0, "__symbols_end": 0}  # no table of symbols unless a test sets one


def map_memory(base: int, data: bytearray) -> Region:
    """Let `data` be seen at address `base` (host code only). Regions may not overlap."""
    place = bisect_right(_mapped, (base, 0))
    if any(start < base + len(data) and base < end for start, end in _mapped[max(place - 1, 0):place + 1]):
        raise ValueError(f"memory at {base:#x} is mapped already")
    region = Region(base, data)
    insort(_mapped, (base, base + len(data)))
    _mapped_region[base] = region
    return region


def unmap_memory(base: int) -> None:
    """Take away the region that `map_memory` put at `base` (host code only)."""
    global _found
    _found = (0, 0, Region(0, bytearray()))
    region = _mapped_region.pop(base)
    _mapped.remove((base, base + len(region.data)))


def set_link_address(name: str, value: int) -> None:
    """Say what `link_address(name)` answers under CPython (host code only)."""
    _link_addresses[name] = value


def region_of(place: int, size: int) -> tuple[Region, int]:
    """The region that holds `size` bytes at address `place`, and the offset in it; Fault if none does."""
    global _found
    start, end, last = _found
    if start <= place and place + size <= end:
        return last, place - start
    index = bisect_right(_mapped, (place, 1 << 64)) - 1
    if index >= 0 and place + size <= _mapped[index][1]:
        region: Region | None = _mapped_region[_mapped[index][0]]
        _found = (*_mapped[index], _mapped_region[_mapped[index][0]])
    else:
        page = place >> 12
        region = _storage.get(page)
        while region is None and page > _FIRST_PAGE and page < _next_page and (place >> 12) - page < 4096:
            page -= 1
            region = _storage.get(page)
    if region is None or place < region.base or place + size > region.base + len(region.data):
        raise Fault(f"no memory at {place:#x} ({size} bytes)")
    return region, place - region.base


def _allocate(size: int) -> Region:
    """Zeroed storage that lives as long as something refers to it."""
    global _next_page
    region = Region(_next_page << 12, bytearray(size))
    _storage[_next_page] = region
    _next_page += (size + 4095) // 4096 + 1
    return region


def read_memory(place: int, size: int) -> int:
    """The little-endian number of `size` bytes at `place` (host code only)."""
    region, offset = region_of(place, size)
    return int.from_bytes(region.data[offset:offset + size], "little")


def write_memory(place: int, size: int, value: int) -> None:
    """Store `value` as `size` bytes, little endian, at `place` (host code only)."""
    region, offset = region_of(place, size)
    region.data[offset:offset + size] = value.to_bytes(size, "little")


# How a type lies in memory: its size, its alignment, a reader and a writer of one value; of a plain integer also what reads it fast.
class _Kind:
    __slots__ = ("size", "align", "read", "write", "load")

    def __init__(self, size: int, align: int, read: Callable[[Region, int], Any],
                 write: Callable[[Region, int, Any], None], load: Callable[[bytearray, int], tuple[Any, ...]] | None = None) -> None:
        self.size, self.align, self.read, self.write, self.load = size, align, read, write, load


def _integer(width: Any, convert: Callable[[int], Any] | None) -> _Kind:
    load, store, low, high = width.code.unpack_from, width.code.pack_into, width.low, width.high

    def read(region: Region, offset: int) -> Any:
        return load(region.data, offset)[0]

    def read_converted(region: Region, offset: int) -> Any:
        assert convert is not None
        return convert(load(region.data, offset)[0])

    def write(region: Region, offset: int, value: int) -> None:
        if not low <= value <= high:
            raise OverflowError(f"{value:#x} does not fit {width.__name__}")
        store(region.data, offset, value)

    if convert is None:
        return _Kind(width.code.size, width.code.size, read, write, load)
    return _Kind(width.code.size, width.code.size, read_converted, write)


def _no_store(_region: Region, _offset: int, _value: object) -> None:
    raise TypeError("a struct or an array is not assigned: use copy(dst, src)")


def _pointer(cls: type) -> _Kind:
    def read(region: Region, offset: int) -> Any:
        place = codec.unpack_from("<Q", region.data, offset)[0]
        return None if place == 0 else at(cls, place)

    def write(region: Region, offset: int, value: Any) -> None:
        codec.pack_into("<Q", region.data, offset, 0 if value is None else address(value))

    return _Kind(8, 8, read, write)


def _read_text(region: Region, offset: int) -> str:
    place = codec.unpack_from("<Q", region.data, offset)[0]
    return "" if place == 0 else text_at(place)


def _write_text(region: Region, offset: int, value: str) -> None:
    codec.pack_into("<Q", region.data, offset, text_address(value))


_TEXT = _Kind(8, 8, _read_text, _write_text)


def _kind(hint: Any) -> _Kind:
    """The kind of a field or element of type `hint`."""
    if get_origin(hint) is Annotated:
        inner, count = get_args(hint)[:2]
        element = _kind(get_args(inner)[0])
        return _Kind(element.size * count, element.align,
                     lambda region, offset: Array(region, offset, element, count), _no_store)
    if isinstance(hint, NewType):
        return _kind(hint.__supertype__)
    if get_origin(hint) in (Union, types.UnionType):
        return _pointer(next(part for part in get_args(hint) if part is not type(None)))
    if hint is str:
        return _TEXT
    if hint is bool:
        return _integer(u8, bool)
    if hasattr(hint, "code") and not hasattr(hint, "_krait_layout"):
        return _integer(hint, None)
    if isinstance(hint, type) and issubclass(hint, enum.IntEnum | enum.IntFlag):
        return _integer(u32, hint)
    layout = _layout(hint)
    return _Kind(layout.size, layout.align, lambda region, offset: _view(hint, region, offset), _no_store)


class Array:
    """A fixed array over fake memory; indexes are checked, negative ones refused."""

    __slots__ = ("_region", "_offset", "_element", "_count")

    def __init__(self, region: Region, offset: int, element: _Kind, count: int) -> None:
        self._region, self._offset, self._element, self._count = region, offset, element, count

    def _place(self, index: int) -> int:
        if not 0 <= index < self._count:
            raise IndexError(f"index {index} of {self._count}")
        return self._offset + index * self._element.size

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self._element.read(self._region, self._place(index))

    def __setitem__(self, index: int, value: Any) -> None:
        self._element.write(self._region, self._place(index), value)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(self._count))


class _Layout:
    """Where the fields of one struct lie. `packed`, `align`, `union` are the decorator's options."""

    def __init__(self, packed: bool, align: int, union: bool) -> None:
        self.packed, self.wanted_align, self.union = packed, align, union
        self.fields: dict[str, tuple[int, _Kind]] | None = None
        self.size = 0
        self.align = max(align, 1)

    def resolve(self, cls: type) -> None:
        """Lay out the fields as the x86-64 C ABI does and give `cls` a property for each."""
        self.fields = {}
        names = {name: hint for name, hint in get_type_hints(
            cls, localns={cls.__name__: cls}, include_extras=True).items()}
        offset = end = 0
        for name, hint in names.items():
            kind = _kind(hint)
            align = 1 if self.packed else kind.align
            offset = 0 if self.union else -(-offset // align) * align
            self.fields[name] = (offset, kind)
            setattr(cls, name, _field(offset, kind))
            self.align = max(self.align, align)
            offset += kind.size
            end = max(end, offset)
        self.size = -(-end // self.align) * self.align


def _field(offset: int, kind: _Kind) -> property:
    read, write, load = kind.read, kind.write, kind.load

    def put(self: Any, value: Any) -> None:
        write(self._region, self._offset + offset, value)

    if load is None:
        return property(lambda self: read(self._region, self._offset + offset), put)
    return property(lambda self: load(self._region.data, self._offset + offset)[0], put)  # most of what interpreted code does


def _layout(cls: Any) -> _Layout:
    layout = cls.__dict__.get("_krait_layout")
    if layout.__class__ is not _Layout:
        raise TypeError(f"{cls} is not a struct")
    if layout.fields is None:
        layout.resolve(cls)
    return layout


def _view(cls: type[T], region: Region, offset: int) -> T:
    made = object.__new__(cls)
    made._region, made._offset = region, offset  # type: ignore[attr-defined]
    return made


def _make_struct(cls: Any, packed: bool, align: int, union: bool) -> Any:
    def fresh(self: Any) -> None:
        self._region, self._offset = _allocate(_layout(type(self)).size), 0

    def same(self: Any, other: object) -> bool:
        return type(other) is type(self) and address(self) == address(other)

    def show(self: Any) -> str:
        fields = _layout(type(self)).fields or {}
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in fields)})"

    cls._krait_layout = _Layout(packed, align, union)
    cls.__init__, cls.__eq__, cls.__repr__ = fresh, same, show
    cls.__hash__ = lambda self: hash(address(self))
    return cls


@overload
def struct(cls: type[T], /) -> type[T]: ...
@overload
def struct(*, packed: bool = ..., align: int = ...) -> Callable[[type[T]], type[T]]: ...
def struct(cls: Any = None, /, *, packed: bool = False, align: int = 1) -> Any:
    """Class decorator: annotated fields only, C layout. A name of this type is a reference; `S()` is zeroed."""
    if cls is None:
        return lambda decorated: _make_struct(decorated, packed, align, False)
    return _make_struct(cls, packed, align, False)


def union(cls: type[T]) -> type[T]:
    """Class decorator: as `struct`, with all fields at offset 0."""
    return cast(type[T], _make_struct(cls, False, 1, True))


def apart(function: F) -> F:
    """Function decorator: compiled on its own, never into its callers, so that what it needs costs a frequent path nothing."""
    return function


def at(cls: type[T], place: int) -> T:
    """A reference to the struct `cls` at the address `place` (u64 or Hva)."""
    region, offset = region_of(place, _layout(cls).size)
    return _view(cls, region, offset)


def address(of: object) -> int:
    """The address (Hva, u64) of a struct or a fixed array."""
    place: Any = of
    return cast(int, place._region.base + place._offset)


def _bytes_of(value: Any) -> tuple[Region, int, int]:
    size = value._element.size * value._count if isinstance(value, Array) else _layout(type(value)).size
    return value._region, value._offset, size


def copy(target: T, source: T) -> None:
    """Copy all bytes of one struct or array over another of the same type."""
    region, offset, size = _bytes_of(target)
    other, start, length = _bytes_of(source)
    if size != length:
        raise TypeError("copy() wants two of the same type")
    if region is other and 0 < abs(offset - start) < size:
        raise ValueError("copy() of overlapping bytes")
    region.data[offset:offset + size] = other.data[start:start + length]


def clear(target: object) -> None:
    """Fill a struct or an array with zero bytes."""
    region, offset, size = _bytes_of(target)
    region.data[offset:offset + size] = bytes(size)


def sizeof(cls: type) -> int:
    """Size in bytes of a struct or a width; a constant of the build."""
    return _kind(cls).size


def offsetof(cls: type, field: str) -> int:
    """Offset in bytes of a field; a constant of the build."""
    return (_layout(cls).fields or {})[field][0]


def array(element: type[T], count: int) -> list[T]:
    """A fresh zeroed fixed array: `buf: Annotated[list[u8], 64] = array(u8, 64)`."""
    kind = _kind(element)
    return cast("list[T]", Array(_allocate(kind.size * count), 0, kind, count))


def wrap_u64(value: int) -> u64:
    """`value` modulo 2^64: the only place, with its narrower brothers, where arithmetic may wrap."""
    return value & 0xFFFF_FFFF_FFFF_FFFF


def wrap_u32(value: int) -> u32:
    """`value` modulo 2^32."""
    return value & 0xFFFF_FFFF


def wrap_u16(value: int) -> u16:
    """`value` modulo 2^16."""
    return value & 0xFFFF


def wrap_u8(value: int) -> u8:
    """`value` modulo 2^8."""
    return value & 0xFF


def sext_i64(value: u64) -> i64:
    """The same 64 bits read as a signed number."""
    return value - (1 << 64) if value >> 63 else value


def char_at(text: str, index: int) -> u8:
    """The code of the character at `index`, 0 at the end of the text (reading past it is a bug)."""
    if index < 0 or index > len(text):
        raise IndexError(f"character {index} of {len(text)}")
    return ord(text[index]) if index < len(text) else 0


def text_address(text: str) -> u64:
    """The address of a text's first character (ASCII, NUL-terminated)."""
    if text not in _texts:
        _texts[text] = _allocate(len(text) + 1)
        _texts[text].data[:len(text)] = text.encode("ascii")
    return _texts[text].base


def text_at(place: int) -> str:
    """The NUL-terminated text at the address `place`."""
    region, offset = region_of(place, 1)
    end = region.data.index(0, offset)
    return region.data[offset:end].decode("ascii")


def link_address(name: str) -> u64:
    """The address of a symbol of the link script or of assembly (`__image_end`)."""
    return _link_addresses[name]
