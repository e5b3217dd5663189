"""VERSION, EVENTS_SETUP, YIELD, BLOCK, WAKE, POWER_OFF, CRASH, REBOOT."""
from typing import Annotated, Final

from hypervisor import event_delivery, guest_console
from hypervisor import reboot as restart
from hypervisor.abi import (ABI_VERSION, CRASH_TEXT_BYTES, EVENT_WAKE, FEATURE_CONSOLE, FEATURE_EVENTS, FEATURE_MEMORY, Error, VcpuInfo)
from hypervisor.addresses import Gpa, Hva
from hypervisor.cpu import owe
from hypervisor.crash import stop
from hypervisor.events import raise_event
from hypervisor.handlers.outcome import Outcome
from hypervisor.hypercalls.answer import error, not_pinned, result
from hypervisor.lang import address, array, sizeof, text_at, u8, u32, u64
from hypervisor.memory import guest_memory
from hypervisor.model import WORK_INJECT, WORK_RESCHED, Vcpu, VmState
from hypervisor.sched import yielding
from hypervisor.status import Status

VERSION_AND_FEATURES: Final[u64] = ABI_VERSION | (FEATURE_CONSOLE | FEATURE_EVENTS | FEATURE_MEMORY) << 32
FIRST_EVENT_VECTOR: Final = 32
LAST_EVENT_VECTOR: Final = 255
INFO_ALIGNMENT: Final = 64
EXIT_CODE_MAX: Final = 255
UNPRINTABLE: Final = 0x3F  # ?


def version(vcpu: Vcpu) -> Outcome:
    """Answers ABI_VERSION | features << 32. The shortest call."""
    return result(vcpu, VERSION_AND_FEATURES)


def events_setup(vcpu: Vcpu) -> Outcome:
    """(RDI: gpa of a VcpuInfo, RSI: vector): events go there from now on."""
    gpa = Gpa(vcpu.regs.rdi)
    vector: u64 = vcpu.regs.rsi
    if vector < FIRST_EVENT_VECTOR or vector > LAST_EVENT_VECTOR or gpa % INFO_ALIGNMENT != 0:
        return error(vcpu, Error.BAD_ARGUMENT)
    status = guest_memory.pin(vcpu, gpa, sizeof(VcpuInfo), True)
    if status != Status.OK:
        return not_pinned(vcpu, status)
    vcpu.info_gpa = gpa
    vcpu.event_vector = u32(vector)
    vcpu.info_valid = True
    owe(WORK_INJECT)
    return result(vcpu, 0)


def yield_cpu(vcpu: Vcpu) -> Outcome:
    """Let another vCPU run first."""
    yielding.yield_to_others(vcpu)
    owe(WORK_RESCHED)
    return result(vcpu, 0)


def block(vcpu: Vcpu) -> Outcome:
    """Sleep until an event is pending; one the guest has not taken counts. Without EVENTS_SETUP each event ends one BLOCK."""
    if vcpu.info_valid:
        status = guest_memory.pin(vcpu, vcpu.info_gpa, sizeof(VcpuInfo), True)
        if status != Status.OK:
            return not_pinned(vcpu, status)
    unseen = event_delivery.unseen(vcpu)
    vcpu.regs.rax = 0
    if unseen != 0:
        if not vcpu.info_valid:
            vcpu.pending_events = 0
        return Outcome.SKIP
    vcpu.event_interrupt = False  # what its interrupt would have told, the guest has taken already
    return Outcome.BLOCK


def wake(vcpu: Vcpu) -> Outcome:
    """(RDI: index of a vCPU of this VM): raise EVENT_WAKE there."""
    vm = vcpu.vm
    assert vm is not None
    index: u64 = vcpu.regs.rdi
    if index >= vm.vcpu_count:
        return error(vcpu, Error.BAD_ARGUMENT)
    other = vm.vcpus[index]
    if other is None:
        return error(vcpu, Error.BAD_ARGUMENT)
    raise_event(other, EVENT_WAKE)
    return result(vcpu, 0)


def power_off(vcpu: Vcpu) -> Outcome:
    """(RDI: exit code 0..255): end this VM."""
    vm = vcpu.vm
    assert vm is not None
    code: u64 = vcpu.regs.rdi
    if code > EXIT_CODE_MAX:
        return error(vcpu, Error.BAD_ARGUMENT)
    vm.exit_code = u32(code)
    vm.state = VmState.ENDED
    return Outcome.STOP


def crash(vcpu: Vcpu) -> Outcome:
    """(RDI: gpa of text, RSI: bytes): stop this VM with a dump; the text, as far as it is printable, is the reason."""
    text: Annotated[list[u8], CRASH_TEXT_BYTES + 1] = array(u8, CRASH_TEXT_BYTES + 1)
    vm = vcpu.vm
    assert vm is not None
    gpa = Gpa(vcpu.regs.rdi)
    length: u64 = vcpu.regs.rsi
    if length > CRASH_TEXT_BYTES:
        return error(vcpu, Error.BAD_ARGUMENT)
    status = guest_memory.pin(vcpu, gpa, length, False)
    if status != Status.OK:
        return not_pinned(vcpu, status)
    guest_memory.copy_in(vcpu, Hva(address(text)), gpa, length)
    for i in range(length):
        if not guest_console.is_printable(text[i]):
            text[i] = UNPRINTABLE
    stop(vcpu, vcpu.exit, text_at(address(text)))
    return Outcome.STOP


def reboot(vcpu: Vcpu) -> Outcome:
    """Start this VM again, memory cleared, from its kernel in the bundle."""
    vm = vcpu.vm
    assert vm is not None
    return restart.ask(vm, "its call")
