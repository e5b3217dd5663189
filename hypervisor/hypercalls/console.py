"""CONSOLE_WRITE, CONSOLE_READ."""
from typing import Annotated, Final

from hypervisor import guest_console
from hypervisor.abi import CONSOLE_CALL_BYTES, Error
from hypervisor.addresses import Gpa, Hva
from hypervisor.channel import consoles
from hypervisor.handlers.outcome import Outcome
from hypervisor.hypercalls.answer import error, not_pinned, result
from hypervisor.lang import address, array, u8, u64
from hypervisor.memory import guest_memory
from hypervisor.model import Vcpu
from hypervisor.status import Status

# Bytes that one call moves at most, so that it stays below 50 k instructions: each may be shown as four.
WRITE_CHUNK: Final = 128
READ_CHUNK: Final = 256
NEWLINE: Final = 10


def write(vcpu: Vcpu) -> Outcome:
    """(RDI: gpa, RSI: bytes): the first WRITE_CHUNK bytes at most, and none behind a newline; answers how many. Waits while the
    host does not take what was written before."""
    buffer: Annotated[list[u8], WRITE_CHUNK] = array(u8, WRITE_CHUNK)
    gpa = Gpa(vcpu.regs.rdi)
    length = vcpu.regs.rsi
    if length > CONSOLE_CALL_BYTES:
        return error(vcpu, Error.BAD_ARGUMENT)
    status = guest_memory.pin(vcpu, gpa, length, False)
    if status != Status.OK:
        return not_pinned(vcpu, status)
    vm = vcpu.vm
    assert vm is not None
    room: u64 = consoles.room(vm)
    if room == 0 and length != 0 and consoles.wait(vcpu, vm):
        return Outcome.WAIT
    consoles.stop_waiting(vcpu)
    most: u64 = min(min(length, WRITE_CHUNK), max(consoles.room(vm), 1))
    guest_memory.copy_in(vcpu, Hva(address(buffer)), gpa, most)
    n: u64 = 0
    while n < most:
        guest_console.put(vm, buffer[n])
        n += 1
        if buffer[n - 1] == NEWLINE:
            break
    return result(vcpu, n)


def read(vcpu: Vcpu) -> Outcome:
    """(RDI: gpa, RSI: bytes): what was typed for this VM; answers how many bytes, 0: none."""
    buffer: Annotated[list[u8], READ_CHUNK] = array(u8, READ_CHUNK)
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
    while n < length and n < READ_CHUNK and guest_console.has_input(vm):
        buffer[n] = guest_console.take_input(vm)
        n += 1
    guest_memory.copy_out(vcpu, gpa, Hva(address(buffer)), n)
    return result(vcpu, n)
