"""This kernel's CPU: segments for both privilege levels, traps on a stack of their own, 512 GiB mapped to itself (and a part of it
a second time for CPL 3), and code run under watch: Probe."""
from typing import Annotated, Final

from guest_pv_drivers.idt import INTERRUPT_GATE, STUB_BYTES, TableRegister
from hypervisor.arch_x86 import intrinsics
from hypervisor.arch_x86.trap_frame import TrapFrame
from hypervisor.lang import address, link_address, struct, u8, u32, u64
from tests.hostile import intrinsics as own
from tests.hostile import machine

VECTORS: Final = 64
CODE: Final = 8
DATA: Final = 16
USER_DATA: Final = 24 | 3
USER_CODE: Final = 32 | 3
TSS: Final = 40
FLAT_CODE: Final[u64] = 0x00AF9B000000FFFF
FLAT_DATA: Final[u64] = 0x00CF93000000FFFF
DPL_3: Final[u64] = 3 << 45
TSS_AVAILABLE: Final[u64] = 0x0000890000000067
IST_1: Final[u64] = 1 << 32
PAGE_BYTES: Final = 4096
PRESENT_USER: Final = 5
PRESENT_WRITABLE: Final = 3
PRESENT_WRITABLE_USER: Final = 7
USER_VIEW: Final[u64] = 1 << 39  # where CPL 3 sees physical address 0; CPL 0 sees it at 0
LARGE: Final = 0x80
RFLAGS_PLAIN: Final = 2
RFLAGS_IF: Final = 0x200
VECTOR_BREAKPOINT: Final = 3
VECTOR_UD: Final = 6
VECTOR_GP: Final = 13
VECTOR_PF: Final = 14
FIRST_INTERRUPT: Final = 32


@struct(align=16)
class Descriptors:
    """GDT, IDT and TSS."""

    gdt: Annotated[list[u64], 8]
    idt: Annotated[list[u64], 128]
    gdt_register: TableRegister
    idt_register: TableRegister
    tss: Annotated[list[u32], 28]


@struct(align=4096)
class Memory:
    """Page tables, and the stack of traps."""

    level4: Annotated[list[u64], 512]
    level3: Annotated[list[u64], 512]
    user_level3: Annotated[list[u64], 512]
    user_level2: Annotated[list[u64], 512]
    user_level1: Annotated[list[u64], 512]
    trap_stack: Annotated[list[u64], 2048]


@struct(align=4096)
class UserPage:
    """What CPL 3 may write: one page; the rest of the image it may read and execute."""

    code: Annotated[list[u8], 64]
    written: Annotated[list[u64], 128]
    zero: Annotated[list[u64], 8]
    stack: Annotated[list[u64], 256]
    rest: Annotated[list[u64], 112]


@struct(align=16)
class Probe:
    """What to run, as start.S knows it, then what became of it."""

    registers: Annotated[list[u64], 16]  # RAX RCX RDX RBX RSP RBP RSI RDI R8-R15
    rip: u64
    cs: u64
    rflags: u64
    ss: u64
    saved_rsp: u64
    running: bool
    vector: u64  # of the trap that ended it; of an interrupt, if `interruptible`
    interruptible: bool
    frame: TrapFrame  # as the trap found it
    cr2: u64


@struct
class Interrupts:
    """What came in beside a probe."""

    count: u64


descriptors: Final = Descriptors()
memory: Final = Memory()
user_page: Final = UserPage()
probe: Final = Probe()
interrupts: Final = Interrupts()


def init() -> None:
    """All of it; interrupts are off, and stay so but in probes that want them."""
    d = descriptors
    tss = address(d.tss)
    top = address(memory.trap_stack) + 2048 * 8
    d.tss[9] = u32(top)  # IST1, low half; the image lies below 4 GiB
    d.tss[1] = u32(top)  # RSP0
    d.tss[25] = 0x68 << 16  # no I/O bitmap
    d.gdt[1] = FLAT_CODE
    d.gdt[2] = FLAT_DATA
    d.gdt[3] = FLAT_DATA | DPL_3
    d.gdt[4] = FLAT_CODE | DPL_3
    d.gdt[5] = TSS_AVAILABLE | (tss & 0xFFFFFF) << 16 | (tss >> 24 & 0xFF) << 56
    d.gdt_register.limit = 8 * 8 - 1
    d.gdt_register.base = address(d.gdt)
    intrinsics.lgdt(address(d.gdt_register))
    stubs = link_address("trap_stubs")
    for vector in range(VECTORS):
        target = stubs + u64(vector) * STUB_BYTES
        d.idt[2 * vector] = (target & 0xFFFF) | CODE << 16 | INTERRUPT_GATE << 32 | IST_1 | (target >> 16 & 0xFFFF) << 48
        d.idt[2 * vector + 1] = target >> 32
    d.idt_register.limit = VECTORS * 16 - 1
    d.idt_register.base = address(d.idt)
    intrinsics.lidt(address(d.idt_register))
    intrinsics.ltr(TSS)
    map_memory()


def map_memory() -> None:
    """512 GiB for CPL 0; for CPL 3, at USER_VIEW, the first 2 MiB to read and its page to write, and all but the first GiB."""
    assert link_address("__image_end") <= PAGE_BYTES * 512
    for i in range(512):
        memory.level3[i] = u64(i) << 30 | PRESENT_WRITABLE_USER | LARGE
        memory.user_level3[i] = memory.level3[i]
        memory.user_level1[i] = u64(i) * PAGE_BYTES | PRESENT_USER
    memory.user_level1[address(user_page) // PAGE_BYTES] = address(user_page) | PRESENT_WRITABLE_USER
    memory.user_level2[0] = address(memory.user_level1) | PRESENT_WRITABLE_USER
    memory.user_level3[0] = address(memory.user_level2) | PRESENT_WRITABLE_USER
    memory.level4[0] = address(memory.level3) | PRESENT_WRITABLE
    memory.level4[1] = address(memory.user_level3) | PRESENT_WRITABLE_USER
    intrinsics.write_cr3(address(memory.level4))


def enter(frame: TrapFrame) -> None:
    """Called by the stubs of start.S on the trap stack."""
    if frame.vector >= FIRST_INTERRUPT:
        interrupts.count += 1
        machine.acknowledge(u32(frame.vector))
        if not probe.running or not probe.interruptible:
            return
    if not probe.running:
        machine.say(f"FAILED: exception {frame.vector}, error {frame.error:#x}, cr2 {intrinsics.read_cr2():#x}, at {frame.rip:#x}")
        machine.end(1)
    probe.running = False
    probe.vector = frame.vector
    probe.frame.rip = frame.rip
    probe.frame.error = frame.error
    probe.frame.rflags = frame.rflags
    probe.frame.rax = frame.rax
    probe.frame.rcx = frame.rcx
    probe.frame.rdx = frame.rdx
    probe.frame.rbx = frame.rbx
    probe.frame.rsi = frame.rsi
    probe.frame.rdi = frame.rdi
    probe.cr2 = intrinsics.read_cr2()
    frame.rip = link_address("probe_landing")
    frame.cs = CODE
    frame.ss = DATA
    frame.rsp = probe.saved_rsp
    frame.rflags = RFLAGS_PLAIN


def run(code: u64, user: bool) -> u64:
    """Run `code` with probe.registers and probe.rflags until a trap; its vector. Code that comes to its end stops at an INT3."""
    probe.rip = code + (USER_VIEW if user else 0)
    probe.cs = USER_CODE if user else CODE
    probe.ss = USER_DATA if user else DATA
    probe.running = True
    own.probe(address(probe))
    return probe.vector
