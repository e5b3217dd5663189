"""ELF32 executables for the i386: header and segments, checked against the file (System V ABI, Intel386 supplement, chapter 4-5)."""
from typing import Annotated, Final

from hypervisor.addresses import Hva
from hypervisor.lang import at, copy, sizeof, struct, u8, u16, u32, u64
from hypervisor.status import Status

ELF_MAGIC: Final[u32] = 0x464C457F
CLASS_32: Final = 1
EM_386: Final = 3
ET_EXEC: Final = 2
PT_LOAD: Final = 1
SEGMENTS_MOST: Final = 16


@struct
class ElfHeader:
    """Elf32_Ehdr."""

    magic: u32
    ident: Annotated[list[u8], 12]
    type: u16
    machine: u16
    version: u32
    entry: u32
    program_offset: u32
    section_offset: u32
    flags: u32
    header_size: u16
    program_entry_size: u16
    program_count: u16
    section_entry_size: u16
    section_count: u16
    section_names: u16


@struct
class ProgramHeader:
    """Elf32_Phdr."""

    type: u32
    offset: u32
    virtual_address: u32
    physical_address: u32
    file_size: u32
    memory_size: u32
    flags: u32
    align: u32


def read_header(file: Hva, size: u64, header: ElfHeader) -> Status:
    """Copy and check it. UNSUPPORTED: no 32-bit executable for the i386; BAD_ARGUMENT: damaged, or too many program headers."""
    if size < sizeof(ElfHeader):
        return Status.BAD_ARGUMENT
    copy(header, at(ElfHeader, file))
    if header.magic != ELF_MAGIC or header.ident[0] != CLASS_32 or header.machine != EM_386 or header.type != ET_EXEC:
        return Status.UNSUPPORTED
    table: u64 = u64(header.program_count) * sizeof(ProgramHeader)
    if (header.program_entry_size != sizeof(ProgramHeader) or header.program_count > SEGMENTS_MOST
            or header.program_offset > size or table > size - header.program_offset):
        return Status.BAD_ARGUMENT
    return Status.OK


def read_segment(file: Hva, size: u64, header: ElfHeader, index: u64, segment: ProgramHeader) -> bool:
    """Copy a program header; whether it is one to load, and lies in the file. `header` is from read_header, index below its count."""
    copy(segment, at(ProgramHeader, Hva(file + header.program_offset + index * sizeof(ProgramHeader))))
    if segment.type != PT_LOAD or segment.memory_size == 0:
        return False
    return segment.offset <= size and segment.file_size <= size - segment.offset and segment.file_size <= segment.memory_size
