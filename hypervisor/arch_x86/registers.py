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
