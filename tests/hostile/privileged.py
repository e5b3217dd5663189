"""Every privileged instruction, and every one of virtualization, at both privilege levels: what each did, by name."""
from typing import Final

from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import address, link_address, text_at, u32, u64
from tests.hostile import cpu, machine
from tests.hostile.cpu import RFLAGS_PLAIN, VECTOR_BREAKPOINT, VECTOR_GP, probe, user_page

ENTRY_BYTES: Final = 32
NAME_AT: Final = 16
HOSTILE: Final[u64] = 0x8000000000000005
LETTER_H: Final = 104
INT3: Final = 0xCC


def prepare(view: u64) -> None:
    """Registers: RCX is hostile, RDI and R8 name the real GDT and IDT, RSI memory to write, R9 zeros, R10 is no selector of a
    system segment; the others are 0. `view`: where they are seen."""
    for i in range(16):
        probe.registers[i] = 0
    probe.registers[1] = HOSTILE
    probe.registers[4] = view + address(user_page.stack) + 128 * 8
    probe.registers[6] = view + address(user_page.written)
    probe.registers[7] = view + address(cpu.descriptors.gdt_register)
    probe.registers[8] = view + address(cpu.descriptors.idt_register)
    probe.registers[9] = view + address(user_page.zero)
    probe.registers[10] = cpu.DATA
    probe.rflags = RFLAGS_PLAIN


def came_to_its_end(code: u64) -> bool:
    """Whether the trap was at the INT3 behind the instruction: #BP at CPL 0, behind it; #GP at CPL 3, at it."""
    at = probe.frame.rip
    if probe.vector == VECTOR_BREAKPOINT:
        return True
    return probe.vector == VECTOR_GP and at > code and at < code + NAME_AT and intrinsics.load_u8(at & ~cpu.USER_VIEW) == INT3


def outcome(code: u64, user: bool) -> str:
    """Run one; what became of it."""
    prepare(cpu.USER_VIEW if user else 0)
    vector = u32(cpu.run(code, user))
    if came_to_its_end(code + (cpu.USER_VIEW if user else 0)):
        return "done"
    match vector:
        case 6:
            return "#UD"
        case 13:
            return "#GP"
        case 1:
            return "#DB"
        case 14:
            return "#PF"
        case _:
            return "other"


def privileged() -> u32:
    """One line for each: name, CPL 0, CPL 3. `from=N`: without the first N."""
    place = link_address("instructions") + machine.number("from=", 0) * ENTRY_BYTES
    tried: u64 = 0
    while place < link_address("instructions_end"):
        name = place + NAME_AT
        kernel: str = "-"
        if intrinsics.load_u8(name) != LETTER_H:  # a halt with interrupts off ends the guest
            kernel = outcome(place, False)
        machine.say(f"{text_at(name)}: {kernel} {outcome(place, True)}")
        tried += 1
        place += ENTRY_BYTES
    machine.say(f"{tried} instructions tried at both levels")
    return 0
