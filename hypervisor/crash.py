"""Stopping one VM for a fault of its guest: a dump that says what and where, in pieces. The other VMs do not notice."""
from typing import Annotated, Final

from hypervisor import guest_code, log, vm
from hypervisor.abi_channel import EventKind
from hypervisor.addresses import Hva
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.state import GuestState
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.channel import events
from hypervisor.lang import address, array, u8, u32
from hypervisor.model import Vcpu, Vm, VmState

SEGMENT_NAMES: Final[Annotated[list[str], 8]] = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"]
EXIT_CODE_CRASHED: Final = 255
CODE_BYTES: Final = 16  # room for guest_code.MOST
PIECES: Final = 4  # of a dump: each line takes thousands of instructions


def stop(vcpu: Vcpu, exit: VmExit, cause: str) -> None:
    """End the VM as CRASHED, and let dump_some tell more once it has left all CPUs. The handler then answers Outcome.STOP."""
    owner = vcpu.vm
    assert owner is not None
    log.error(f"vm '{vm.name(owner)}' stopped: {cause} at rip {vcpu.regs.rip:#x}")
    backend.fill_raw(vcpu, exit)
    owner.crashed = vcpu
    owner.dumped = 0
    owner.state = VmState.CRASHED
    owner.exit_code = EXIT_CODE_CRASHED
    events.happened(owner, EventKind.CRASHED, EXIT_CODE_CRASHED, cause)


def dump_some() -> bool:
    """A piece of what the hardware knows of a vCPU that has crashed; False: there is none, or no more of it."""
    owner = vm.first_ended()
    if owner is None:
        return False
    vcpu = owner.crashed
    if vcpu is None:
        return False
    state = GuestState()
    backend.read_state(vcpu, state)
    if owner.dumped == 0:
        dump_registers(owner, vcpu)
    elif owner.dumped == 1:
        dump_controls(vcpu, state)
    else:
        dump_segments(state, 4 * (owner.dumped - 2))
    owner.dumped += 1
    if owner.dumped == PIECES:
        owner.crashed = None
    return True


def dump_registers(owner: Vm, vcpu: Vcpu) -> None:
    """The exit, and what a program sees."""
    r = vcpu.regs
    exit = vcpu.exit
    log.error(f"  vm {owner.id} vcpu {vcpu.index}, exit {exit.raw_reason:#x} info {exit.raw_info1:#x} {exit.raw_info2:#x}")
    log.error(f"  rax {r.rax:016x} rbx {r.rbx:016x} rcx {r.rcx:016x} rdx {r.rdx:016x}")
    log.error(f"  rsi {r.rsi:016x} rdi {r.rdi:016x} rbp {r.rbp:016x} rsp {r.rsp:016x}")
    log.error(f"  r8  {r.r8:016x} r9  {r.r9:016x} r10 {r.r10:016x} r11 {r.r11:016x}")
    log.error(f"  r12 {r.r12:016x} r13 {r.r13:016x} r14 {r.r14:016x} r15 {r.r15:016x}")


def dump_controls(vcpu: Vcpu, state: GuestState) -> None:
    """What a system sets, and where it was."""
    r = vcpu.regs
    log.error(f"  rip {r.rip:016x} rflags {r.rflags:08x} cr2 {r.cr2:016x} efer {state.efer:x}")
    log.error(f"  cr0 {state.cr0:016x} cr3 {state.cr3:016x} cr4 {state.cr4:x} dr6 {state.dr6:x} dr7 {state.dr7:x}")
    log.error(f"  gdtr {state.gdtr_base:016x} {state.gdtr_limit:04x} idtr {state.idtr_base:016x} {state.idtr_limit:04x}")
    dump_code(vcpu)


def dump_segments(state: GuestState, first: u32) -> None:
    """Four of them."""
    for i in range(first, first + 4):
        segment = state.segments[i]
        log.error(f"  {SEGMENT_NAMES[i]:<4} {segment.selector:04x} base {segment.base:016x} limit {segment.limit:08x}"
            f" attributes {segment.attributes:05x}")


def dump_code(vcpu: Vcpu) -> None:
    """The bytes at RIP, if its page is there."""
    code: Annotated[list[u8], CODE_BYTES] = array(u8, CODE_BYTES)
    count = guest_code.fetch(vcpu, Hva(address(code)))
    if count == 0:
        log.error("  code: not readable")
        return
    log.error(f"  code {code[0]:02x} {code[1]:02x} {code[2]:02x} {code[3]:02x} {code[4]:02x} {code[5]:02x} {code[6]:02x}"
        f" {code[7]:02x} {code[8]:02x} {code[9]:02x} {code[10]:02x} {code[11]:02x} ({count} bytes)")
