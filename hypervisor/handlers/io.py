"""IN and OUT: to the emulated devices of the VM; a port without a device reads all ones and drops writes."""
from typing import Final

from hypervisor import crash
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import u64
from hypervisor.model import Vcpu

BYTE: Final[u64] = 0xFF
WORD: Final[u64] = 0xFFFF
DWORD: Final[u64] = 0xFFFFFFFF


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """One access. A string of them is not emulated yet."""
    if exit.is_string:
        crash.stop(vcpu, exit, f"string I/O at port {exit.port:#x}")
        return Outcome.STOP
    if exit.is_in:
        put_result(vcpu, exit, DWORD)
    return Outcome.SKIP


def put_result(vcpu: Vcpu, exit: VmExit, value: u64) -> None:
    """AL, AX, or EAX (which clears the upper half of RAX)."""
    rax = vcpu.regs.rax
    if exit.size == 1:
        vcpu.regs.rax = (rax & ~BYTE) | (value & BYTE)
    elif exit.size == 2:
        vcpu.regs.rax = (rax & ~WORD) | (value & WORD)
    else:
        vcpu.regs.rax = value & DWORD
