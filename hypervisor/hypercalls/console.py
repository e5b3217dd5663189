"""CONSOLE_WRITE, CONSOLE_READ."""
from typing import Annotated, Final

from hypervisor import guest_console
from hypervisor.abi import CONSOLE_CALL_BYTES, Error
from hypervisor.addresses import Gpa, Hva
from hypervisor.handlers.outcome import Outcome
from hypervisor.hypercalls.answer import error, not_pinned, result
from hypervisor.lang import address, array, u8, u64
from hypervisor.memory import guest_memory
from hypervisor.model import Vcpu
from hypervisor.status import Status

CHUNK: Final = 256  # bytes that one call moves at most, so that it stays below 50 k instructions


def write(vcpu: Vcpu) -> Outcome:
    """(RDI: gpa, RSI: bytes): the first CHUNK bytes at most; answers how many."""
    buffer: Annotated[list[u8], CHUNK] = array(u8, CHUNK)
    gpa = Gpa(vcpu.regs.rdi)
    length = vcpu.regs.rsi
    if length > CONSOLE_CALL_BYTES:
        return error(vcpu, Error.BAD_ARGUMENT)
    status = guest_memory.pin(vcpu, gpa, length, False)
    if status != Status.OK:
        return not_pinned(vcpu, status)
    vm = vcpu.vm
    assert vm is not None
    most: u64 = length if length < CHUNK else CHUNK
    guest_memory.copy_in(vcpu, Hva(address(buffer)), gpa, most)
    for i in range(most):
        guest_console.put(vm, buffer[i])
    return result(vcpu, most)


def read(vcpu: Vcpu) -> Outcome:
    """(RDI: gpa, RSI: bytes): what was typed for this VM; answers how many bytes, 0: none."""
    buffer: Annotated[list[u8], CHUNK] = array(u8, CHUNK)
    gpa = Gpa(vcpu.regs.rdi)
    length = vcpu.regs.rsi
    if length > CONSOLE_CALL_BYTES:
        return error(vcpu, Error.BAD_ARGUMENT)
    status = guest_memory.pin(vcpu, gpa, length, True)
    if status != Status.OK:
        return not_pinned(vcpu, status)
    vm = vcpu.vm
    assert vm is not None
    n: u64 = 0
    while n < length and n < CHUNK and guest_console.has_input(vm):
        buffer[n] = guest_console.take_input(vm)
        n += 1
    guest_memory.copy_out(vcpu, gpa, Hva(address(buffer)), n)
    return result(vcpu, n)
