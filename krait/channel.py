"""Frames of the machine channel (second serial port) as hypervisor/abi_channel.py lays them out: made, found in bytes, decoded."""

import functools
import struct
import zlib
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hypervisor import abi_channel as abi
from hypervisor.abi_channel import FrameKind
from hypervisor.lang import address, offsetof, read_memory, sizeof

HEADER = struct.Struct("<HBBIHH")
"""abi_channel.FrameHeader."""

assert HEADER.size == abi.HEADER_BYTES


@dataclass(frozen=True)
class Frame:
    """One frame, its checks passed."""

    kind: FrameKind
    stream: int
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    """The frame's bytes on the line."""
    head = HEADER.pack(abi.FRAME_MAGIC, abi.CHANNEL_VERSION, frame.kind, frame.stream, len(frame.payload), 0)[:-2]
    check = zlib.crc32(head) & 0xFFFF
    return head + struct.pack("<H", check) + frame.payload + struct.pack("<I", zlib.crc32(frame.payload))


@dataclass
class Reader:
    """Finds frames in what comes, in pieces of any size; what is none is skipped and counted."""

    skipped: int = 0
    bad: int = 0
    _held: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now."""
        self._held += data
        found: list[Frame] = []
        place = 0
        while len(self._held) - place >= abi.HEADER_BYTES:
            length = self._length(place)
            if length is None:
                place += 1
                self.skipped += 1
                continue
            end = place + abi.HEADER_BYTES + length + abi.CRC_BYTES
            if end > len(self._held):
                break
            frame = self._frame(place, length)
            if frame is None:
                self.bad += 1
            else:
                found.append(frame)
            place = end
        del self._held[:place]
        return found

    def _length(self, place: int) -> int | None:
        """Bytes of payload of the frame that begins here; None: none does."""
        magic, version, _, _, length, check = HEADER.unpack_from(self._held, place)
        if (magic, version) != (abi.FRAME_MAGIC, abi.CHANNEL_VERSION) or length > abi.PAYLOAD_MOST:
            return None
        return int(length) if check == zlib.crc32(self._held[place : place + abi.HEADER_CHECKED]) & 0xFFFF else None

    def _frame(self, place: int, length: int) -> Frame | None:
        _, _, kind, stream, _, _ = HEADER.unpack_from(self._held, place)
        start = place + abi.HEADER_BYTES
        payload = bytes(self._held[start : start + length])
        (crc,) = struct.unpack_from("<I", self._held, start + length)
        return Frame(FrameKind(kind), stream, payload) if crc == zlib.crc32(payload) and kind < abi.FRAME_KINDS else None


def bytes_of(record: object) -> bytes:
    """The bytes of one struct of the subset."""
    return read_memory(address(record), sizeof(type(record))).to_bytes(sizeof(type(record)), "little")


def decode(cls: type, payload: bytes) -> dict[str, Any]:
    """The fields of one struct of the subset by name: numbers as they are, arrays of bytes as text, other arrays as lists.

    ValueError: the payload has another size.
    """
    if len(payload) != sizeof(cls):
        raise ValueError(f"{len(payload)} bytes are no {cls.__name__}, which has {sizeof(cls)}")
    return {name: _value(payload, offset, form, array) for name, offset, form, array in _fields(cls)}


@functools.cache
def _fields(cls: type) -> list[tuple[str, int, struct.Struct, bool]]:
    """Name, offset, format, and whether it is an array, of each field."""
    return [(name, offsetof(cls, name), *_format(hint)) for name, hint in get_type_hints(cls, include_extras=True).items()]


def _format(hint: Any) -> tuple[struct.Struct, bool]:
    if get_origin(hint) is Annotated:
        inner, count = get_args(hint)[:2]
        code = get_args(inner)[0].code.format
        return struct.Struct(f"<{count}s" if code == "<B" else f"<{count}{code[1:]}"), True
    return struct.Struct(hint.code.format), False


def _value(payload: bytes, offset: int, form: struct.Struct, array: bool) -> Any:
    values = form.unpack_from(payload, offset)
    if not array:
        return values[0]
    return values[0].split(b"\0", 1)[0].decode("ascii", "replace") if form.format.endswith("s") else list(values)
