"""General registers by number, as instructions name them."""
from hypervisor.arch_x86.state import Registers
from hypervisor.lang import u32, u64


def get(regs: Registers, number: u32) -> u64:
    """Register 0 (RAX) to 15 (R15)."""
    match number:
        case 0:
            return regs.rax
        case 1:
            return regs.rcx
        case 2:
            return regs.rdx
        case 3:
            return regs.rbx
        case 4:
            return regs.rsp
        case 5:
            return regs.rbp
        case 6:
            return regs.rsi
        case 7:
            return regs.rdi
        case _:
            return get_upper(regs, number)


def get_upper(regs: Registers, number: u32) -> u64:
    """Register 8 to 15."""
    match number:
        case 8:
            return regs.r8
        case 9:
            return regs.r9
        case 10:
            return regs.r10
        case 11:
            return regs.r11
        case 12:
            return regs.r12
        case 13:
            return regs.r13
        case 14:
            return regs.r14
        case _:
            return regs.r15


def put(regs: Registers, number: u32, value: u64, size: u32) -> None:
    """Write the low 1, 2, 4 or 8 bytes of a register; 4 clear the upper half."""
    match size:
        case 1:
            put_whole(regs, number, get(regs, number) & ~0xFF | value & 0xFF)
        case 2:
            put_whole(regs, number, get(regs, number) & ~0xFFFF | value & 0xFFFF)
        case 4:
            put_whole(regs, number, value & 0xFFFF_FFFF)
        case _:
            put_whole(regs, number, value)


def put_whole(regs: Registers, number: u32, value: u64) -> None:
    """All 64 bits."""
    match number:
        case 0:
            regs.rax = value
        case 1:
            regs.rcx = value
        case 2:
            regs.rdx = value
        case 3:
            regs.rbx = value
        case 4:
            regs.rsp = value
        case 5:
            regs.rbp = value
        case 6:
            regs.rsi = value
        case 7:
            regs.rdi = value
        case _:
            put_upper(regs, number, value)


def put_upper(regs: Registers, number: u32, value: u64) -> None:
    """Register 8 to 15."""
    match number:
        case 8:
            regs.r8 = value
        case 9:
            regs.r9 = value
        case 10:
            regs.r10 = value
        case 11:
            regs.r11 = value
        case 12:
            regs.r12 = value
        case 13:
            regs.r13 = value
        case 14:
            regs.r14 = value
        case _:
            regs.r15 = value
