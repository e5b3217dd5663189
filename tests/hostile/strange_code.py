"""Random instructions at addresses where nothing is, at CPL 3 with a timer running: emulated, refused by an exception, or this VM is
stopped and its dump names the bytes."""
from typing import Annotated, Final

from hypervisor.arch_x86.intrinsics import fill_memory, store_u64
from hypervisor.lang import address, struct, u8, u32, u64
from tests.hostile import chance, cpu, machine
from tests.hostile.chance import below, draw
from tests.hostile.cpu import FIRST_INTERRUPT, RFLAGS_IF, RFLAGS_PLAIN, USER_VIEW, VECTOR_PF, VECTOR_UD, probe, user_page

HOLE: Final[u64] = USER_VIEW + (64 << 30)
CODE_BYTES: Final = 64
INT3: Final = 0xCC
LOCK: Final = 0xF0  # QEMU ignores it where a CPU refuses it
PREFIX_COUNT: Final = 11
PREFIXES: Final[Annotated[list[u8], PREFIX_COUNT]] = [0x66, 0x67, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, 0x48]
# One-byte opcodes that name memory and that the emulator knows; those of map 0F in the second table.
KNOWN_COUNT: Final = 52
KNOWN: Final[Annotated[list[u8], KNOWN_COUNT]] = [
    0x00, 0x01, 0x02, 0x03, 0x08, 0x09, 0x0A, 0x0B, 0x20, 0x21, 0x22, 0x23, 0x28, 0x29, 0x2A, 0x2B, 0x30, 0x31, 0x32, 0x33,
    0x38, 0x39, 0x3A, 0x3B, 0x63, 0x80, 0x81, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8B, 0xA0, 0xA1, 0xA2, 0xA3,
    0xA4, 0xA5, 0xAA, 0xAB, 0xAC, 0xAD, 0xC6, 0xC7, 0xF6, 0xF7, 0x88, 0x8B]
KNOWN_0F_COUNT: Final = 13
KNOWN_0F: Final[Annotated[list[u8], KNOWN_0F_COUNT]] = [
    0xA3, 0xAB, 0xB0, 0xB1, 0xB3, 0xB6, 0xB7, 0xBA, 0xBB, 0xBE, 0xBF, 0xC0, 0xC1]


@struct
class Tally:
    """What became of them."""

    done: u64
    invalid: u64
    page_faults: u64
    interrupted: u64
    other: u64


tally: Final = Tally()


def write_code(known: bool) -> None:
    """One instruction, INT3 behind it (as far as its end can be told)."""
    place: u64 = 0
    fill_memory(address(user_page.code), INT3, CODE_BYTES)
    if not known:
        for i in range(15):
            user_page.code[i] = u8(draw() & 0xFF)
        return
    opcode = KNOWN[below(KNOWN_COUNT)]
    in_0f: bool = below(4) == 0
    for _ in range(below(3)):
        user_page.code[place] = PREFIXES[below(PREFIX_COUNT)]
        place += 1
    if opcode in (0x00, 0x01, 0x08, 0x09, 0x86, 0x87) and not in_0f and below(4) == 0:
        user_page.code[place] = LOCK
        place += 1
    if below(2) == 0:
        user_page.code[place] = u8(0x40 | below(16))
        place += 1
    if in_0f:
        opcode = KNOWN_0F[below(KNOWN_0F_COUNT)]
        user_page.code[place] = 0x0F
        place += 1
    user_page.code[place] = opcode
    if not in_0f and 0xA0 <= opcode <= 0xA3:
        store_u64(address(user_page.code) + place + 1, HOLE + below(1 << 30))
    elif in_0f or opcode < 0xA4 or opcode > 0xAD:
        user_page.code[place + 1] = mod_rm(opcode)
        if user_page.code[place + 1] & 7 == 4:
            user_page.code[place + 2] = u8(draw() & 0xFF)  # SIB; displacement and immediate may well be INT3s


def mod_rm(opcode: u8) -> u8:
    """Any that names memory, but for opcodes that are groups: QEMU runs members that do not exist as others, and NOT, NEG, MUL and DIV are
    not emulated."""
    any_mod: u64 = below(3) << 6 | draw() & 7
    match opcode:
        case 0xC6 | 0xC7 | 0xF6 | 0xF7:
            return u8(any_mod)
        case 0x80 | 0x81 | 0x83:
            return u8(any_mod | (4 + below(4)) << 3)
        case 0xBA:
            return u8(any_mod | (4 + below(4)) << 3)
        case _:
            return u8(any_mod | draw() & 0x38)


def write_registers() -> None:
    """Bases in the hole, indexes small, RCX a small count, the stack in memory."""
    for i in range(16):
        probe.registers[i] = HOLE + below(1 << 30)
    for i in range(4):
        probe.registers[i] = below(64)
    probe.registers[9] = below(1 << 20)
    probe.registers[4] = USER_VIEW + address(user_page.stack) + 128 * 8
    probe.rflags = RFLAGS_PLAIN | RFLAGS_IF | (draw() & 0x4D5)


def attempt(known: bool) -> None:
    """One of them."""
    write_code(known)
    write_registers()
    vector = cpu.run(address(user_page.code), True)
    if vector >= FIRST_INTERRUPT:
        tally.interrupted += 1
    elif vector == VECTOR_UD:
        tally.invalid += 1
    elif vector == VECTOR_PF:
        tally.page_faults += 1
    elif vector == 13 and probe.frame.rip > USER_VIEW + address(user_page.code):
        tally.done += 1
    else:
        tally.other += 1


def strange_code() -> u32:
    """`count=` instructions of the emulator's repertoire, or with `any=1` of any bytes at all."""
    count = machine.number("count=", 1000)
    known: bool = machine.number("any=", 0) == 0
    probe.interruptible = True
    machine.start_timer(5_000_000, machine.PERIODIC)
    for _ in range(count):
        attempt(known)
    machine.say(f"{tally.done} done, {tally.invalid} #UD, {tally.page_faults} #PF, {tally.interrupted} interrupted, {tally.other} others")
    machine.say(f"{count} instructions at holes, seed {machine.number('seed=', 1)}")
    return 0
