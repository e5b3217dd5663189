"""When events arrive: single steps across emulated instructions, the shadows of STI and MOV SS, pending interrupts, and events whose
delivery itself needs a page that is not there."""
from typing import Final

from guest_pv_drivers import hypercall
from hypervisor.arch_x86 import intrinsics
from hypervisor.arch_x86.intrinsics import fill_memory
from hypervisor.lang import address, struct, u8, u32, u64
from tests.hostile import cpu, machine
from tests.hostile.cpu import FIRST_INTERRUPT, PAGE_BYTES, RFLAGS_PLAIN, probe, user_page

RFLAGS_TF: Final = 0x100
DR6_BS: Final[u64] = 1 << 14
VECTOR_DB: Final = 1
INT3: Final = 0xCC
CODE_BYTES: Final = 64
HOLE: Final[u64] = 0x90000000
UNMAPPED: Final[u64] = 0xFFFF800000123456


@struct
class Tally:
    """How it went."""

    tried: u64
    wrong: u64


tally: Final = Tally()


def code(bytes_: u64, count: u64) -> u64:
    """Up to eight bytes, the first one lowest, and INT3 behind them; where they are."""
    fill_memory(address(user_page.code), INT3, CODE_BYTES)
    for i in range(count):
        user_page.code[i] = u8(bytes_ >> (8 * i & 63) & 0xFF)
    for i in range(16):
        probe.registers[i] = 0
    probe.registers[4] = address(user_page.stack) + 128 * 8
    return address(user_page.code)


def check(what: str, good: bool) -> None:
    """Count it, and say what is wrong."""
    tally.tried += 1
    if not good:
        tally.wrong += 1
        machine.say(f"FAILED: {what}: vector {probe.vector} at +{probe.frame.rip - address(user_page.code)}, dr6 {intrinsics.read_dr6():#x}, "
                    f"error {probe.frame.error:#x}, cr2 {probe.cr2:#x}")


def single_step(what: str, bytes_: u64, count: u64, rcx: u64, rdi: u64) -> None:
    """TF is set: #DB comes behind the first instruction, with DR6.BS, however it is carried out."""
    place = code(bytes_, count)
    probe.registers[1] = rcx
    probe.registers[7] = rdi
    probe.rflags = RFLAGS_PLAIN | RFLAGS_TF
    intrinsics.write_dr6(0xFFFF0FF0)
    vector = cpu.run(place, False)
    check(what, vector == VECTOR_DB and probe.frame.rip == place + count and intrinsics.read_dr6() & DR6_BS != 0)


def single_steps() -> None:
    """Across what the CPU does, and across what only a hypervisor does."""
    single_step("TF, NOP", 0x90, 1, 0, 0)
    single_step("TF, CPUID", 0xA20F, 2, 0, 0)
    single_step("TF, RDMSR", 0x320F, 2, 0x1B, 0)
    single_step("TF, IN", 0x80E4, 2, 0, 0)
    single_step("TF, WBINVD", 0x090F, 2, 0, 0)
    single_step("TF, hypercall", 0xD9010F if machine.machine.amd else 0xC1010F, 3, 0, 0)
    if not machine.machine.pv:
        single_step("TF, ADD to a hole", 0x0701, 2, 0, HOLE)
        single_step("TF, MOV to a hole", 0x0789, 2, 0, HOLE)
        single_step("TF, a last STOSB to a hole", 0xAAF3, 2, 1, HOLE)


def make_interrupt_pending() -> None:
    """One that comes as soon as interrupts are on."""
    machine.start_timer(1, machine.ONCE)
    while not machine.interrupt_waits():
        machine.time_ns()


def interrupted_at(what: str, bytes_: u64, count: u64, offset: u64) -> None:
    """An interrupt waits; interrupts go on in the code: it comes before the instruction at `offset`."""
    make_interrupt_pending()
    place = code(bytes_, count)
    probe.registers[0] = cpu.DATA
    probe.rflags = RFLAGS_PLAIN
    probe.interruptible = True
    vector = cpu.run(place, False)
    probe.interruptible = False
    check(what, vector >= FIRST_INTERRUPT and probe.frame.rip == place + offset)


def shadows() -> None:
    """STI holds interrupts off for one instruction, also if that one exits; MOV SS a single step's trap. The first `shadows=` times: in
    about one of 300 an interrupt of the host ends the guest's time there."""
    for _ in range(machine.number("shadows=", 1)):
        interrupted_at("STI, NOP", 0x9090FB, 3, 2)
    interrupted_at("STI, CPUID", 0x90A20FFB, 4, 3)
    interrupted_at("STI, IN", 0x9080E4FB, 4, 3)
    stepped_over_mov_ss("TF, MOV SS, NOP", 0x90D08E, 3)
    stepped_over_mov_ss("TF, MOV SS, CPUID", 0xA20FD08E, 4)


def stepped_over_mov_ss(what: str, bytes_: u64, count: u64) -> None:
    """TF is set, MOV SS is first: #DB comes behind the second instruction."""
    place = code(bytes_, count)
    probe.registers[0] = cpu.DATA
    probe.rflags = RFLAGS_PLAIN | RFLAGS_TF
    vector = cpu.run(place, False)
    check(what, vector == VECTOR_DB and probe.frame.rip == place + count)


def take_stack_away() -> None:
    """The page that the next trap pushes to has no frame."""
    top = address(cpu.memory.trap_stack) + 2048 * 8
    released = hypercall.release((top - 1) // PAGE_BYTES, 1)
    assert released == 1


def delivery_faults() -> None:
    """The trap's stack is not there when an exception, an interrupt or INT n wants it: the event comes once it is."""
    place = code(0x0B0F, 2)
    probe.rflags = RFLAGS_PLAIN
    take_stack_away()
    check("#UD on a stack without frame", cpu.run(place, False) == 6 and probe.frame.rip == place)
    place = code(0x038B, 2)
    probe.registers[3] = UNMAPPED
    take_stack_away()
    check("#PF on a stack without frame", cpu.run(place, False) == 14 and probe.cr2 == UNMAPPED and probe.frame.error == 0)
    place = code(0x30CD, 2)
    probe.interruptible = True
    take_stack_away()
    check("INT 30 on a stack without frame", cpu.run(place, False) == 0x30 and probe.frame.rip == place + 2)
    make_interrupt_pending()
    place = code(0x9090FB, 3)
    take_stack_away()
    check("an interrupt on a stack without frame", cpu.run(place, False) == FIRST_INTERRUPT and probe.frame.rip == place + 2)
    probe.interruptible = False


def events() -> u32:
    """All of it."""
    single_steps()
    shadows()
    if machine.machine.pv:
        delivery_faults()
    machine.say(f"events: {tally.tried} tried, {tally.wrong} wrong")
    return 0 if tally.wrong == 0 else 1
