"""The bundle: guests and their configuration, one newc cpio archive loaded as a module. Nothing in it is trusted.

Layout: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""
from typing import Final

from hypervisor.addresses import Hpa, hva_of
from hypervisor.arch_x86.intrinsics import load_u8
from hypervisor.lang import char_at, struct, text_address, u8, u32, u64
from hypervisor.status import Status

HEADER_BYTES: Final = 110
MAGIC: Final = "070701"
MAGIC_BYTES: Final = 6
FIELD_FILESIZE: Final = 6
FIELD_NAMESIZE: Final = 11
TRAILER: Final = "TRAILER!!!"
LONGEST_NAME: Final = 256
BAD_NUMBER: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF


@struct
class Bundle:
    """Where the archive lies, once `init` has walked all of it."""

    hpa: Hpa
    size: u64
    members: u32


@struct
class Member:
    """A file in the archive; data is 4-byte aligned and stays where it is."""

    hpa: Hpa
    size: u64
    name_hpa: Hpa
    name_length: u32  # without the NUL
    next: u64  # offset of the next header


bundle: Final = Bundle()


def init(hpa: Hpa, size: u64) -> Status:
    """Take the archive at `hpa`; BAD_ARGUMENT if any member reaches beyond it or the trailer is missing."""
    bundle.hpa = hpa
    bundle.size = size
    bundle.members = 0
    member = Member()
    while True:
        if not _read(member.next, member):
            return Status.BAD_ARGUMENT
        if _is_named(member, text_address(TRAILER), LONGEST_NAME):
            return Status.OK
        bundle.members += 1


def find(name: str, member: Member) -> Status:
    """Find a file by name; NOT_FOUND if there is none."""
    return find_bytes(text_address(name), LONGEST_NAME, member)


def find_bytes(name: u64, longest: u32, member: Member) -> Status:
    """Find a file by a name of at most `longest` bytes at an address, NUL-terminated if shorter."""
    member.next = 0
    for _ in range(bundle.members):
        if not _read(member.next, member):
            return Status.BAD_ARGUMENT
        if _is_named(member, name, longest):
            return Status.OK
    return Status.NOT_FOUND


def _read(offset: u64, member: Member) -> bool:
    """Read the header at `offset`; False if it, the name or the data reach beyond the archive."""
    if bundle.size < HEADER_BYTES or offset > bundle.size - HEADER_BYTES:
        return False
    header: u64 = hva_of(bundle.hpa) + offset
    for i in range(MAGIC_BYTES):
        if load_u8(header + i) != char_at(MAGIC, i):
            return False
    size = _number(header, FIELD_FILESIZE)
    name_size = _number(header, FIELD_NAMESIZE)
    if size == BAD_NUMBER or name_size == 0 or name_size > LONGEST_NAME:
        return False
    data = (offset + HEADER_BYTES + name_size + 3) & ~u64(3)
    if data > bundle.size or size > bundle.size - data:
        return False
    member.hpa = Hpa(bundle.hpa + data)
    member.size = size
    member.name_hpa = Hpa(bundle.hpa + offset + HEADER_BYTES)
    member.name_length = u32(name_size - 1)
    member.next = (data + size + 3) & ~u64(3)
    return True


def _number(header: u64, field: u64) -> u64:
    """Eight hexadecimal digits; BAD_NUMBER if one is none."""
    value: u64 = 0
    for i in range(8):
        digit = _digit(load_u8(header + MAGIC_BYTES + 8 * field + i))
        if digit > 15:
            return BAD_NUMBER
        value = value << 4 | digit
    return value


def _digit(character: u8) -> u32:
    """The value of a hexadecimal digit, 16 if it is none."""
    if 48 <= character <= 57:
        return u32(character - 48)
    if 65 <= character <= 70:
        return u32(character - 55)
    if 97 <= character <= 102:
        return u32(character - 87)
    return 16


def _is_named(member: Member, name: u64, longest: u32) -> bool:
    length = member.name_length
    if length > longest:
        return False
    for i in range(length):
        if load_u8(hva_of(member.name_hpa) + i) != load_u8(name + i):
            return False
    return length == longest or load_u8(name + length) == 0
