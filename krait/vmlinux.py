"""The kernel proper inside a bzImage: vmlinux, an ELF file, for PVH entry.

Linux Documentation/arch/x86/boot.rst (6.1): setup_sects at 0x1F1, payload_offset and payload_length at 0x248. The payload is
compressed by one of several programs, told apart by its first bytes; the kernel's length stands behind it.
"""

import hashlib
import lzma
import struct
import subprocess
import zlib
from pathlib import Path

from krait import paths, tools
from krait.outcome import ExitCode, KraitError

ELF = b"\x7fELF"
PT_LOAD = 1
FOLDER = paths.OUT / "guest"
BY_PROGRAM = {b"\x02!L\x18": "lz4", b"(\xb5/\xfd": "zstd"}


def extracted(kernel: Path) -> Path:
    """The vmlinux in a bzImage, as a file of ours; the kernel itself when it is an ELF file already."""
    data = kernel.read_bytes()
    if data.startswith(ELF):
        return kernel
    # Named by what is in it: kernels of several folders are called vmlinuz, and an older one may take a newer one's place.
    target = FOLDER / f"vmlinux-{hashlib.sha256(data).hexdigest()[:16]}"
    with paths.lock("vmlinux"):
        if not target.exists():
            paths.write_whole(target, extract(data, kernel))
    return target


def extract(data: bytes, source: Path) -> bytes:
    """Decompress the payload of the bzImage `data`; KraitError names `source` when there is none that we know."""
    if data[0x202:0x206] != b"HdrS":
        raise KraitError(f"{source}: neither a bzImage nor an ELF file", ExitCode.USAGE)
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (data[0x1F1] + 1) * 512 + offset
    payload = data[start : start + length]
    vmlinux = _decompress(payload)
    if not vmlinux.startswith(ELF) or payload[-4:] != struct.pack("<I", len(vmlinux)):
        raise KraitError(f"{source}: its payload holds no vmlinux that can be extracted", ExitCode.USAGE)
    return vmlinux


def _decompress(payload: bytes) -> bytes:
    """By the payload's magic number; nothing when it is not known or damaged."""
    try:
        if payload.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(payload)
        if payload.startswith(b"\xfd7zXZ"):
            return lzma.LZMADecompressor().decompress(payload)
    except (zlib.error, lzma.LZMAError):
        return b""
    program = BY_PROGRAM.get(payload[:4])
    if program is None:
        return b""
    # The kernel's length, behind the compressed data, these programs would take for damage.
    return subprocess.run([tools.require(program), "-dc"], input=payload[:-4], capture_output=True).stdout


def memory_needed(vmlinux: bytes) -> int:
    """The address behind the highest segment of an ELF64 file; 0 when it is damaged (the hypervisor says so)."""
    try:
        (table,) = struct.unpack_from("<Q", vmlinux, 32)
        (size, count) = struct.unpack_from("<HH", vmlinux, 54)
        headers = [struct.unpack_from("<IIQQQQQQ", vmlinux, table + size * index) for index in range(count)]
    except struct.error:
        return 0
    return max((header[4] + header[6] for header in headers if header[0] == PT_LOAD), default=0)
