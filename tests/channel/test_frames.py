"""Frames: any bytes may be given to the parser; interpreted, compiled, compiled with sanitizers and the host's reader agree."""
from __future__ import annotations

import ctypes
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hostlib
from host_library import HostLibrary
from hypervisor.abi_channel import FRAME_KINDS, FRAME_MAGIC, PAYLOAD_MOST, FrameHeader, FrameKind
from hypervisor.channel import frames
from hypervisor.channel.frames import Parser
from hypervisor.lang import address, sizeof
from krait.channel import HEADER, Frame, Reader, bytes_of, encode
from tests.three_lives.builds import ROOT
from tests.three_lives.test_scenario import run_sanitized

MODULE = "hypervisor.channel.frames"
FRAMES = st.builds(Frame, st.sampled_from(FrameKind), st.integers(0, 2**32 - 1), st.binary(max_size=PAYLOAD_MOST))
SMALL = st.builds(Frame, st.sampled_from(FrameKind), st.integers(0, 2**32 - 1), st.binary(max_size=40))
BROKEN = st.tuples(SMALL.map(encode), st.integers(0, 10_000), st.integers(1, 255)).map(
    lambda t: bytes(byte ^ (t[2] if place == t[1] % len(t[0]) else 0) for place, byte in enumerate(t[0])))
MAGIC = FRAME_MAGIC.to_bytes(2, "little")
GARBAGE = st.one_of(st.binary(max_size=40), st.sampled_from([MAGIC, MAGIC + b"\x01", MAGIC * 5, MAGIC + b"\x02" + bytes(20)]), BROKEN)
LINE = st.lists(st.one_of(SMALL, GARBAGE), max_size=12)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    """The parser compiled; KRAIT_HOST_LIBRARY names a ready one."""
    ready = os.environ.get("KRAIT_HOST_LIBRARY")
    if ready is not None:
        return HostLibrary(Path(ready))
    out = tmp_path_factory.mktemp("channel")
    hostlib.build(ROOT, [MODULE], out, sanitize=False)
    return HostLibrary(out)


def bytes_on(line: list[Frame | bytes]) -> bytes:
    return b"".join(encode(item) if isinstance(item, Frame) else item for item in line)


def parse(data: bytes) -> tuple[list[Frame], int, int, int]:
    """What the hypervisor's parser finds: frames, bytes skipped, bad frames, bytes begun."""
    parser, found = Parser(), []
    for byte in data:
        if frames.feed(parser, byte):
            header = frames.header_of(parser)
            payload = bytes(parser.frame[12 + index] for index in range(header.length))
            if header.kind < FRAME_KINDS:
                found.append(Frame(FrameKind(header.kind), header.stream, payload))
    return found, parser.skipped, parser.bad, parser.have


def parse_compiled(library: HostLibrary, data: bytes) -> tuple[list[Frame], int, int, int]:
    feed = library.function(f"{MODULE}.feed")
    parser: Any = library.struct(f"{MODULE}.Parser")()
    found = []
    for byte in data:
        if feed(parser, byte):
            frame = bytes(parser.frame)
            _, _, kind, stream, length, _ = HEADER.unpack_from(frame)
            if kind < FRAME_KINDS:
                found.append(Frame(FrameKind(kind), stream, frame[12:12 + length]))
    return found, parser.skipped, parser.bad, parser.have


@given(FRAMES)
def test_a_frame_arrives(frame: Frame) -> None:
    assert parse(encode(frame)) == ([frame], 0, 0, 0)
    header = FrameHeader()
    frames.fill_header(header, frame.kind, frame.stream, len(frame.payload))
    assert bytes_of(header) == encode(frame)[:sizeof(FrameHeader)]


@given(st.binary(max_size=600))
def test_the_crc_is_that_of_ieee_802_3(data: bytes) -> None:
    parser = Parser()
    for index, byte in enumerate(data[:500]):
        parser.frame[index] = byte
    assert frames.crc_of(address(parser.frame), min(len(data), 500)) == zlib.crc32(data[:500])


@given(LINE, st.lists(st.integers(1, 30), max_size=20))
def test_what_is_found_in_garbage(line: list[Frame | bytes], cuts: list[int]) -> None:
    """The host's reader and the hypervisor's parser find the same, in pieces of any size; a frame behind garbage is found
    once there is enough behind it for no frame to be begun any more."""
    data = bytes_on([*line, bytes(600), Frame(FrameKind.QUERY, 7, b"last")])
    found, skipped, bad, have = parse(data)
    assert found[-1] == Frame(FrameKind.QUERY, 7, b"last") and have == 0
    reader, read, rest = Reader(), [], data
    for cut in cuts:
        read += reader.feed(rest[:cut])
        rest = rest[cut:]
    read += reader.feed(rest)
    assert (read, reader.skipped) == (found, skipped) and reader.bad >= bad
    whole = [item for item in line if isinstance(item, Frame)]
    if len(whole) == len(line):
        assert found[:-1] == whole and skipped == 600 and bad == 0


@given(LINE)
@settings(max_examples=300, deadline=None)
def test_compiled_is_interpreted(library: HostLibrary, line: list[Frame | bytes]) -> None:
    data = bytes_on(line)
    assert parse_compiled(library, data) == parse(data)


@given(st.binary(max_size=5000), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes(library: HostLibrary, data: bytes, magic: bool) -> None:
    """A run of bytes without frames is skipped byte by byte; nothing is written beyond the parser."""
    if magic:
        data = data.replace(b"\x00", MAGIC)
    parser: Any = library.struct(f"{MODULE}.Parser")()
    block = (ctypes.c_uint8 * (ctypes.sizeof(parser) + 64))()
    guarded = type(parser).from_buffer(block)
    feed = library.function(f"{MODULE}.feed")
    frames_found = sum(bool(feed(guarded, byte)) for byte in data)
    assert bytes(block)[-64:] == bytes(64)
    assert guarded.skipped + guarded.have <= len(data) and frames_found * 16 <= len(data)


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is missing")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """Address, undefined, overflow and implicit-conversion sanitizers over the same bytes."""
    hostlib.build(ROOT, [MODULE], tmp_path, sanitize=True)
    done = run_sanitized(tmp_path, ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/channel/test_frames.py",
                                    "-k", "test_compiled_is_interpreted or test_any_bytes"])
    assert done.returncode == 0, done.stdout + done.stderr
