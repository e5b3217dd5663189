"""What the loader says about the machine, copied out of its structures before anything can overwrite them.

Xen "x86/HVM direct boot ABI" (PVH, hvm_start_info) and Multiboot 2 specification 2.0, section 3.6.
"""
from enum import IntEnum
from typing import Annotated, Final

from hypervisor.addresses import Hpa
from hypervisor.arch_x86.intrinsics import copy_memory, load_u8, load_u32, load_u64
from hypervisor.lang import address, at, struct, u8, u32, u64
from hypervisor.status import Status

MULTIBOOT2_MAGIC: Final[u32] = 0x36D7_6289  # in EAX
PVH_MAGIC: Final[u32] = 0x336E_C578  # first word of hvm_start_info

MEMORY_USABLE: Final = 1  # type in both memory maps
MOST_RANGES: Final = 64
CMDLINE_BYTES: Final = 256
RSDP_BYTES: Final = 36

TAG_END: Final = 0
TAG_CMDLINE: Final = 1
TAG_MODULE: Final = 3
TAG_MEMORY_MAP: Final = 6
TAG_ACPI_OLD: Final = 14
TAG_ACPI_NEW: Final = 15
LAST_ADDRESS: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF
LONGEST_TAGS: Final = 0x10_0000  # bytes of tags that are believed


class Loader(IntEnum):
    """Who loaded us."""

    UNKNOWN = 0
    PVH = 1
    MULTIBOOT2 = 2


@struct
class MemoryRange:
    """One entry of the memory map, as the firmware gave it: not aligned, in any order."""

    base: u64
    size: u64
    usable: bool


@struct
class BootInfo:
    """The copy."""

    loader: Loader
    range_count: u32
    ranges: Annotated[list[MemoryRange], MOST_RANGES]
    ranges_ignored: u32  # beyond MOST_RANGES
    bundle_hpa: Hpa
    bundle_size: u64  # 0: no module
    module_count: u32
    cmdline: Annotated[list[u8], CMDLINE_BYTES]  # NUL-terminated
    has_rsdp: bool
    rsdp: Annotated[list[u8], RSDP_BYTES]  # ACPI root pointer; 20 bytes of it are valid in revision 0


@struct
class HvmModule:
    """hvm_modlist_entry."""

    paddr: u64
    size: u64
    cmdline_paddr: u64
    reserved: u64


@struct
class HvmStartInfo:
    """hvm_start_info, version 1 (version 0 ends before memmap_paddr)."""

    magic: u32
    version: u32
    flags: u32
    nr_modules: u32
    modlist_paddr: u64
    cmdline_paddr: u64
    rsdp_paddr: u64
    memmap_paddr: u64
    memmap_entries: u32
    reserved: u32


info: Final = BootInfo()


def init(magic: u32, place: u64) -> Status:
    """Fill `info` from what the loader left at `place`; UNSUPPORTED: neither PVH nor Multiboot 2."""
    if magic == MULTIBOOT2_MAGIC:
        info.loader = Loader.MULTIBOOT2
        return _read_multiboot2(place)
    if load_u32(place) == PVH_MAGIC:
        info.loader = Loader.PVH
        return _read_pvh(at(HvmStartInfo, place))
    return Status.UNSUPPORTED


def usable_bytes() -> u64:
    """All usable memory."""
    total: u64 = 0
    for i in range(info.range_count):
        if info.ranges[i].usable:
            total += info.ranges[i].size
    return total


def usable_end() -> u64:
    """The address behind the highest usable byte."""
    end: u64 = 0
    for i in range(info.range_count):
        entry = info.ranges[i]
        if entry.usable and entry.base + entry.size > end:
            end = entry.base + entry.size
    return end


def has_usable(place: u64, size: u64) -> bool:
    """Is there usable memory in [place, place + size)?"""
    for i in range(info.range_count):
        entry = info.ranges[i]
        if entry.usable and entry.base < place + size and place < entry.base + entry.size:
            return True
    return False


def is_usable(start: u64, end: u64) -> bool:
    """Whether [start, end) lies in one range of usable memory."""
    for i in range(info.range_count):
        entry = info.ranges[i]
        if entry.usable and entry.base <= start and end <= entry.base + entry.size:
            return True
    return False


def _read_pvh(start: HvmStartInfo) -> Status:
    if start.version == 0 or start.memmap_paddr == 0:
        return Status.UNSUPPORTED  # no memory map
    for i in range(start.memmap_entries):
        _add_range(start.memmap_paddr + 24 * i)
    if start.nr_modules != 0:
        module = at(HvmModule, start.modlist_paddr)
        info.bundle_hpa = Hpa(module.paddr)
        info.bundle_size = module.size
    info.module_count = start.nr_modules
    if start.cmdline_paddr != 0:
        _copy_text(start.cmdline_paddr, CMDLINE_BYTES)
    if start.rsdp_paddr != 0:
        _copy_rsdp(start.rsdp_paddr, RSDP_BYTES)
    return Status.OK


def _read_multiboot2(place: u64) -> Status:
    total: u64 = load_u32(place)
    offset: u64 = 8
    if total > LONGEST_TAGS:
        return Status.BAD_ARGUMENT
    while offset + 8 <= total:
        size: u64 = load_u32(place + offset + 4)
        if size < 8 or offset + size > total:
            return Status.BAD_ARGUMENT
        if load_u32(place + offset) == TAG_END:
            return Status.OK if info.range_count != 0 else Status.UNSUPPORTED
        _read_tag(load_u32(place + offset), place + offset, size)
        offset = (offset + size + 7) & ~u64(7)
    return Status.BAD_ARGUMENT


def _read_tag(kind: u32, tag: u64, size: u64) -> None:
    """One tag of `size` bytes, its header (type, size) included."""
    if kind == TAG_CMDLINE:
        _copy_text(tag + 8, size - 8)
    elif kind == TAG_MODULE and size >= 16:
        if info.module_count == 0 and load_u32(tag + 12) >= load_u32(tag + 8):
            info.bundle_hpa = Hpa(load_u32(tag + 8))
            info.bundle_size = load_u32(tag + 12) - load_u32(tag + 8)
        info.module_count += 1
    elif kind == TAG_MEMORY_MAP and size >= 16:
        step: u64 = load_u32(tag + 8)
        entry: u64 = 16
        while step >= 24 and entry + 24 <= size:
            _add_range(tag + entry)
            entry += step
    elif kind == TAG_ACPI_NEW:
        _copy_rsdp(tag + 8, size - 8)
    elif kind == TAG_ACPI_OLD and not info.has_rsdp:
        _copy_rsdp(tag + 8, size - 8)


def _add_range(entry: u64) -> None:
    """Base, size (u64) and type (u32): the same in both maps."""
    if info.range_count == MOST_RANGES:
        info.ranges_ignored += 1
        return
    new = info.ranges[info.range_count]
    new.base = load_u64(entry)
    new.size = load_u64(entry + 8)
    new.usable = load_u32(entry + 16) == MEMORY_USABLE
    if new.size > LAST_ADDRESS - new.base:
        return  # wraps: not a range
    info.range_count += 1


def _copy_text(source: u64, longest: u64) -> None:
    """At most `longest` bytes of a NUL-terminated text into cmdline, cut to fit."""
    i: u32 = 0
    while i < CMDLINE_BYTES - 1 and i < longest and load_u8(source + i) != 0:
        info.cmdline[i] = load_u8(source + i)
        i += 1
    info.cmdline[i] = 0


def _copy_rsdp(source: u64, length: u64) -> None:
    copy_memory(address(info.rsdp), source, length if length < RSDP_BYTES else RSDP_BYTES)
    info.has_rsdp = True
