"""cpio archives of the "new ASCII" form (newc), as Linux's initramfs and Krait's bundle use them.

Written byte for byte the same from the same members: no owner, no time, numbered in order.
Layout: `man 5 cpio`; Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
HEADER_BYTES = 110
S_IFREG, S_IFDIR, S_IFCHR, S_IFLNK = 0o100000, 0o040000, 0o020000, 0o120000


@dataclass(frozen=True)
class Member:
    """One entry; `mode` with its file type bits, `device` the (major, minor) of a device node."""

    name: str
    data: bytes = b""
    mode: int = S_IFREG | 0o644
    device: tuple[int, int] = (0, 0)


def write(members: Iterable[Member]) -> bytes:
    """The archive of `members`, in their order."""
    archive = bytearray()
    for number, member in enumerate(members, start=1):
        _append(archive, number, member)
    _append(archive, 0, Member(TRAILER, mode=0))
    return bytes(archive)


def _append(archive: bytearray, number: int, member: Member) -> None:
    name = member.name.encode() + b"\0"
    links = 2 if member.mode & S_IFDIR == S_IFDIR else 1
    fields = (number, member.mode, 0, 0, links, 0, len(member.data), 0, 0, *member.device, len(name), 0)
    archive += MAGIC + b"".join(b"%08x" % value for value in fields) + name
    archive += bytes(-len(archive) % 4)
    archive += member.data
    archive += bytes(-len(archive) % 4)


def read(archive: bytes) -> Iterator[Member]:
    """The members of an archive that `write` or cpio(1) made; ValueError when it is no such archive."""
    position = 0
    while True:
        header = archive[position : position + HEADER_BYTES]
        if len(header) < HEADER_BYTES or header[:6] != MAGIC:
            raise ValueError(f"no newc header at byte {position}")
        fields = [int(header[6 + 8 * index : 14 + 8 * index], 16) for index in range(13)]
        mode, size, device, name_size = fields[1], fields[6], (fields[9], fields[10]), fields[11]
        start = position + HEADER_BYTES
        name = archive[start : start + name_size - 1].decode()
        if name == TRAILER:
            return
        data = start + name_size + -(start + name_size) % 4
        if data + size > len(archive):
            raise ValueError(f"{name}: cut short")
        yield Member(name, archive[data : data + size], mode, device)
        position = data + size + -(data + size) % 4
