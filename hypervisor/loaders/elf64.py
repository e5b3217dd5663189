"""ELF64 files: their segments into a VM's memory, and their notes.

ELF-64 Object File Format 1.5, chapters 3 and 6. The file comes from the bundle and is not trusted: each offset is checked
against the file, each address against the VM's memory.
"""
from typing import Annotated, Final

from hypervisor.addresses import Gpa, Hva
from hypervisor.lang import at, copy, sizeof, struct, u8, u16, u32, u64
from hypervisor.memory import guest_memory
from hypervisor.model import Vm
from hypervisor.status import Status

ELF_MAGIC: Final[u32] = 0x464C457F
CLASS_64: Final = 2
EM_X86_64: Final = 62
ET_EXEC: Final = 2
PT_LOAD: Final = 1
PT_NOTE: Final = 4
SEGMENTS_MOST: Final = 16
NOTES_MOST: Final = 64  # of one segment that are looked at


@struct
class ElfHeader:
    """Elf64_Ehdr."""

    magic: u32
    ident: Annotated[list[u8], 12]
    type: u16
    machine: u16
    version: u32
    entry: u64
    program_offset: u64
    section_offset: u64
    flags: u32
    header_size: u16
    program_entry_size: u16
    program_count: u16
    section_entry_size: u16
    section_count: u16
    section_names: u16


@struct
class ProgramHeader:
    """Elf64_Phdr."""

    type: u32
    flags: u32
    offset: u64
    virtual_address: u64
    physical_address: u64
    file_size: u64
    memory_size: u64
    align: u64


@struct
class Loaded:
    """What the next steps need."""

    entry: u64
    start: u64  # lowest gpa of the kernel
    end: u64  # first gpa behind it


@struct
class Note:
    """What stands before a note's name and description, each of which is padded to four bytes."""

    name_size: u32
    size: u32
    type: u32


@struct
class NoteWord:
    """Four bytes of a note."""

    value: u32


def is_elf(file: Hva, size: u64) -> bool:
    """Whether a file claims to be one."""
    return size >= sizeof(ElfHeader) and at(ElfHeader, file).magic == ELF_MAGIC


def read_header(file: Hva, size: u64, header: ElfHeader) -> Status:
    """A copy of the file's header, checked: program headers lie in the file. BAD_ARGUMENT."""
    if size < sizeof(ElfHeader):
        return Status.BAD_ARGUMENT
    copy(header, at(ElfHeader, file))
    if header.magic != ELF_MAGIC or header.machine != EM_X86_64 or header.type != ET_EXEC or header.ident[0] != CLASS_64:
        return Status.BAD_ARGUMENT
    table_size: u64 = header.program_count * sizeof(ProgramHeader)
    if (header.program_entry_size != sizeof(ProgramHeader) or header.program_count > SEGMENTS_MOST
            or header.program_offset > size or table_size > size - header.program_offset):
        return Status.BAD_ARGUMENT
    return Status.OK


def load_segments(vm: Vm, file: Hva, size: u64, loaded: Loaded) -> Status:
    """Copy what the program headers name to its physical addresses. BAD_ARGUMENT; BAD_ADDRESS: beyond the VM's memory."""
    header = ElfHeader()
    segment = ProgramHeader()
    status = read_header(file, size, header)
    if status != Status.OK:
        return status
    for i in range(header.program_count):
        copy(segment, at(ProgramHeader, Hva(file + header.program_offset + i * sizeof(ProgramHeader))))
        if segment.type == PT_LOAD and segment.memory_size != 0:
            status = load_segment(vm, file, size, segment, loaded)
            if status != Status.OK:
                return status
    loaded.entry = header.entry
    return Status.OK if loaded.end != 0 else Status.BAD_ARGUMENT


def load_segment(vm: Vm, file: Hva, size: u64, segment: ProgramHeader, loaded: Loaded) -> Status:
    """One of them; the rest of its memory is zero already, as all fresh memory."""
    if segment.offset > size or segment.file_size > size - segment.offset or segment.file_size > segment.memory_size:
        return Status.BAD_ARGUMENT
    gpa = Gpa(segment.physical_address)
    if not guest_memory.in_ram(vm, gpa, segment.memory_size):
        return Status.BAD_ADDRESS
    if loaded.end == 0 or gpa < loaded.start:
        loaded.start = gpa
    if gpa + segment.memory_size > loaded.end:
        loaded.end = gpa + segment.memory_size
    return guest_memory.load_image(vm, gpa, Hva(file + segment.offset), segment.file_size)


def find_note(file: Hva, size: u64, name: u32, type_: u32, found: NoteWord) -> bool:
    """The first four bytes of the description of a note whose name is three letters, `name` with its NUL. False: there is none."""
    header = ElfHeader()
    segment = ProgramHeader()
    if read_header(file, size, header) != Status.OK:
        return False
    for i in range(header.program_count):
        copy(segment, at(ProgramHeader, Hva(file + header.program_offset + i * sizeof(ProgramHeader))))
        if segment.type == PT_NOTE and segment.offset <= size and segment.file_size <= size - segment.offset:
            if find_in(Hva(file + segment.offset), segment.file_size, name, type_, found):
                return True
    return False


def find_in(notes: Hva, size: u64, name: u32, type_: u32, found: NoteWord) -> bool:
    """find_note in one segment, which lies wholly in the file."""
    note = Note()
    offset: u64 = 0
    for _ in range(NOTES_MOST):
        if size < sizeof(Note) or offset > size - sizeof(Note):
            return False
        copy(note, at(Note, Hva(notes + offset)))
        data: u64 = offset + sizeof(Note) + padded(note.name_size)
        end: u64 = data + padded(note.size)
        if end > size:
            return False
        if note.type == type_ and note.name_size == 4 and note.size >= 4 and at(NoteWord, Hva(notes + offset + sizeof(Note))).value == name:
            copy(found, at(NoteWord, Hva(notes + data)))
            return True
        offset = end
    return False


def padded(size: u64) -> u64:
    """To four bytes."""
    return (size + 3) & ~u64(3)
