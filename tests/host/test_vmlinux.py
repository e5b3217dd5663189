"""vmlinux out of a bzImage, whatever it is compressed by."""

import lzma
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from krait import vmlinux
from krait.outcome import ExitCode, KraitError

KERNEL = b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 100


def by(program: str, *options: str) -> Callable[[bytes], bytes]:
    """Compression by a program, if it is here."""

    def compress(data: bytes) -> bytes:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing")
        return subprocess.run([program, *options], input=data, capture_output=True, check=True).stdout

    return compress


def image(payload: bytes) -> bytes:
    """A bzImage with one sector of real-mode code, and code before its payload."""
    header = bytearray(1024 + 0x100)
    header[0x1F1] = 1
    header[0x202:0x206] = b"HdrS"
    payload += struct.pack("<I", len(KERNEL))
    struct.pack_into("<II", header, 0x248, 0x100, len(payload))
    return bytes(header) + payload + b"signature"


def gzip(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=31)
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize("compress", [gzip, lzma.compress, by("lz4", "-lc"), by("zstd", "-c")], ids=["gzip", "xz", "lz4", "zstd"])
def test_the_payload_is_found(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    assert vmlinux.extract(image(compress(KERNEL)), tmp_path) == KERNEL


@pytest.mark.parametrize("data", [b"", bytes(4096), image(b"unknown"), image(lzma.compress(KERNEL)[:-100]), image(lzma.compress(b"none"))])
def test_what_holds_no_kernel_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(KraitError) as caught:
        vmlinux.extract(data, tmp_path / "vmlinuz")
    assert caught.value.code is ExitCode.USAGE and "vmlinuz" in str(caught.value)
