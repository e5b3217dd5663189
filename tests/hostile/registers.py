"""Every MSR number in the architectural ranges, every bit of the control and debug registers: what is shown and what is taken."""
from typing import Annotated, Final

from hypervisor.lang import address, u8, u32, u64
from hypervisor.arch_x86.intrinsics import fill_memory
from tests.hostile import cpu, machine
from tests.hostile.cpu import RFLAGS_PLAIN, VECTOR_BREAKPOINT, VECTOR_GP, probe, user_page

RANGES: Final = 5
FIRST: Final[Annotated[list[u32], RANGES]] = [0, 0x40000000, 0x4B564D00, 0xC0000000, 0xC0010000]
LAST: Final[Annotated[list[u32], RANGES]] = [0x1FFF, 0x400000FF, 0x4B564DFF, 0xC0001FFF, 0xC0011FFF]
VALUES: Final = 4
HOSTILE_VALUES: Final[Annotated[list[u64], VALUES]] = [0xFFFFFFFFFFFFFFFF, 0x8000000000000000, 0x5A5A5A5A5A5A5A5A, 1]
CODE_BYTES: Final = 16
MOV_FROM_CR: Final = 0x20
MOV_FROM_DR: Final = 0x21
MOV_TO_CR: Final = 0x22
MOV_TO_DR: Final = 0x23
CR0_IGNORED: Final[u64] = 0x1FFAFFC0  # reserved: a write of 1 is dropped
GENERAL_DETECT: Final = 13  # of DR7: taken, and then the next access of a debug register is a #DB
CR4_OSXSAVE: Final[u64] = 1 << 18
CR0_NW: Final[u64] = 1 << 29


def instruction(a: u8, b: u8, c: u8) -> None:
    """Three bytes and INT3."""
    fill_memory(address(user_page.code), 0xCC, CODE_BYTES)
    user_page.code[0] = a
    user_page.code[1] = b
    user_page.code[2] = c


def run(rax: u64, rcx: u64, rdx: u64) -> bool:
    """Run it at CPL 0; False: #GP. Anything else is a failure."""
    probe.registers[0] = rax
    probe.registers[1] = rcx
    probe.registers[2] = rdx
    probe.registers[4] = address(user_page.stack) + 128 * 8
    probe.rflags = RFLAGS_PLAIN
    vector = cpu.run(address(user_page.code), False)
    if vector != VECTOR_BREAKPOINT and vector != VECTOR_GP:
        machine.say(f"FAILED: exception {vector} with rcx {rcx:#x} rax {rax:#x}")
        machine.end(1)
    return vector == VECTOR_BREAKPOINT


def read_msr(msr: u32) -> bool:
    """RDMSR; the value is in probe.frame."""
    instruction(0x0F, 0x32, 0xCC)
    return run(0, msr, 0)


def write_msr(msr: u32, value: u64) -> bool:
    """WRMSR."""
    instruction(0x0F, 0x30, 0xCC)
    return run(value & 0xFFFFFFFF, msr, value >> 32)


def msrs() -> u32:
    """RDMSR and WRMSR of all numbers. One line for each that answers: 'msr NUMBER RW', R and W 1 where it can be read, written."""
    tried: u64 = 0
    for i in range(RANGES):
        msr: u64 = FIRST[i]
        while msr <= LAST[i]:
            attempt(u32(msr))
            tried += 1
            msr += 1
    machine.say(f"{tried} MSRs tried")
    return 0


def attempt(msr: u32) -> None:
    """One of them: read, written with its own value, with hostile ones, and then with its own again; or with 0 and all ones."""
    readable: bool = read_msr(msr)
    writable: bool = False
    if readable:
        before: u64 = (probe.frame.rdx & 0xFFFFFFFF) << 32 | (probe.frame.rax & 0xFFFFFFFF)
        writable = write_msr(msr, before)
        for value in HOSTILE_VALUES:
            if write_msr(msr, value):
                writable = True
                write_msr(msr, before)
    else:
        writable = write_msr(msr, 0) or write_msr(msr, HOSTILE_VALUES[0])
    if readable or writable:
        machine.say(f"msr {msr:#x} {1 if readable else 0}{1 if writable else 0}")


def taken(opcode: u8, number: u32, before: u64) -> u64:
    """Which of the bits of a register can be changed alone, from `before`: 0F `opcode` with RAX (MOV CRn, MOV DRn)."""
    bits: u64 = 0
    for bit in range(64):
        if opcode == MOV_TO_DR and bit == GENERAL_DETECT:
            continue
        instruction(0x0F, opcode, u8(0xC0 | (number & 7) << 3))
        if run(before ^ (u64(1) << (bit & 63)), 0, 0):
            bits |= u64(1) << (bit & 63)
            run(before, 0, 0)
    return bits


def value_of(opcode: u8, number: u32) -> u64:
    """MOV RAX, CRn or DRn."""
    instruction(0x0F, opcode, u8(0xC0 | (number & 7) << 3))
    run(0, 0, 0)
    return probe.frame.rax


def control_registers() -> u32:
    """The bits of CR0, CR4, DR6, DR7 and XCR0 that can be changed alone in 64-bit mode. Not CR0 on AMD: its writes do not exit there,
    and QEMU takes some that no CPU takes (see `write_cr0`)."""
    if not machine.machine.amd:
        machine.say(f"cr0 {taken(MOV_TO_CR, 0, value_of(MOV_FROM_CR, 0)) & ~CR0_IGNORED:#x}")
    machine.say(f"cr4 {taken(MOV_TO_CR, 4, value_of(MOV_FROM_CR, 4)):#x}")
    machine.say(f"dr6 {taken(MOV_TO_DR, 6, value_of(MOV_FROM_DR, 6)):#x}")
    machine.say(f"dr7 {taken(MOV_TO_DR, 7, value_of(MOV_FROM_DR, 7)):#x}")
    cr4 = value_of(MOV_FROM_CR, 4)
    instruction(0x0F, MOV_TO_CR, 0xE0)
    if run(cr4 | CR4_OSXSAVE, 0, 0):
        machine.say(f"xcr0 {xcr0_combinations():#x}")
    return 0


def xcr0_combinations() -> u64:
    """Which of the values 0 to 63 XSETBV takes; 7 (or 3, or 1) stays."""
    bits: u64 = 0
    instruction(0x0F, 0x01, 0xD1)
    for value in range(64):
        if run(value, 0, 0):
            bits |= u64(1) << (value & 63)
    run(1, 0, 0)
    run(3, 0, 0)
    run(7, 0, 0)
    return bits


def write_cr0() -> u32:
    """NW without CD: #GP on a CPU, and on VT-x here. QEMU's SVM lets it pass, and refuses the next entry: this VM is stopped."""
    machine.say(f"cr0 {1 if run(value_of_cr0() | CR0_NW, 0, 0) else 0}")
    return 0


def value_of_cr0() -> u64:
    """CR0; leaves the instruction that writes it."""
    value = value_of(MOV_FROM_CR, 0)
    instruction(0x0F, MOV_TO_CR, 0xC0)
    return value
